-- Cancel a job: at once unless it runs; a running one is asked to stop, once, and has a grace to do so.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1, state} done, {2, state} it has ended otherwise, {0} no such job
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local record = rec.one(q, seq)
if not record then
  return {0}
end
local state, facts = record[F.state], ops.facts(reason)
if state == S.running then
  if record[F.cancel] == 0 then
    record[F.cancel] = q.now + ctx.config(q)[C.cancel_grace]
    write.zadd(q, 'cancels', record[F.cancel], seq)
    events.note(q, V.cancel, seq, record, record[F.worker], facts)
  end
elseif state == S.ready or state == S.scheduled or state == S.waiting then
  life.finish(q, V.cancel, seq, record, S.cancelled, facts)
elseif state ~= S.cancelled then
  return {2, state}
end
local answer = ops.keep(q, operation, {1, record[F.state]})
ctx.commit(q)
return answer
