-- Remove a job that has ended, with all that is kept of it.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1} done, {2, state} it has not ended, {0} no such job
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local record = rec.one(q, seq)
if not record then
  return {0}
end
local state = record[F.state]
if state ~= S.succeeded and state ~= S.dead and state ~= S.cancelled and state ~= S.expired then
  return {2, state}
end
events.say(q, 'purge', seq, record, false, ops.facts(reason))
write.zrem(q, state == S.dead and 'dead' or 'done', seq)
rec.uncount(q, record)
rec.drop(q, seq)
q.m.t_purged = q.m.t_purged + 1
local answer = ops.keep(q, operation, {1})
ctx.commit(q)
return answer
