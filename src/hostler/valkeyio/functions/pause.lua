-- Stop claims from this queue; running work goes on.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local answer = ops.keep(q, operation, {ops.queue(q, 'pause', {paused = 1}, reason) and 1 or 0})
ctx.commit(q)
return answer
