-- Make a scheduled or waiting job ready now.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1, state} done, {2, state} it does not wait, {0} no such job
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
if state ~= S.scheduled and state ~= S.waiting then
  return {2, state}
end
life.leave(q, seq, record)
life.ready(q, V.wake, seq, record, ops.facts(reason))
local answer = ops.keep(q, operation, {1, record[F.state]})
ctx.commit(q)
return answer
