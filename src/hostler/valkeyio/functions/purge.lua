-- Remove a job that has ended, with all that is kept of it.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1} done, {2, state} it has not ended, {0} no such job
local q = ctx.open(meta_key)
local _, past = ops.promised(q, operation)
local record = rec.one(q, seq)
if not record then
  return past or {0}
end
local state = record[F.state]
if state ~= S.succeeded and state ~= S.dead and state ~= S.cancelled and state ~= S.expired then
  return {2, state}
end
local answer = ops.promise(q, operation, false, {1})
events.say(q, 'purge', seq, record, false, ops.facts(reason))
write.zrem(q, state == S.dead and 'dead' or 'done', seq)
rec.uncount(q, record)
rec.drop(q, seq)
q.m.t_purged = q.m.t_purged + 1
ctx.commit(q)
return answer
