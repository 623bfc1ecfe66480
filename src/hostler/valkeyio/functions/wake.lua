-- Make a scheduled or waiting job ready now.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1, state} done, {2, state} it does not wait, {0} no such job
local q = ctx.open(meta_key)
local fence, past = ops.promised(q, operation)
local record = rec.one(q, seq)
local waits = record and (record[F.state] == S.scheduled or record[F.state] == S.waiting)
if past and not (waits and record[F.fence] == fence) then
  return past
elseif not record then
  return {0}
elseif not waits then
  return {2, record[F.state]}
end
local answer = ops.promise(q, operation, record[F.fence], {1, S.ready})
life.leave(q, seq, record)
life.ready(q, V.wake, seq, record, ops.facts(reason))
ctx.commit(q)
return answer
