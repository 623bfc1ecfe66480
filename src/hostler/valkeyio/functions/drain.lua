-- Refuse new submits and let what is there run out.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local answer = ops.keep(q, operation, {ops.queue(q, 'drain', {draining = 1}, reason) and 1 or 0})
ctx.commit(q)
return answer
