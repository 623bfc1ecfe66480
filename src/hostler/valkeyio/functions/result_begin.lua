-- Ask for a result; when none is kept, take the flight: the right to run it for all equal jobs.
-- keys meta
-- args key:text kind:text job:text fence:int lasts:int
-- reply {1, sealed result}, {2} the flight is yours, {3, milliseconds that another's still lasts}, or {0} when nothing
-- is kept and `lasts` is 0: then no flight is wanted.
local q = ctx.open(meta_key)
local sealed = redis.call('GET', q.p .. 'rc:' .. key)
local answer
if sealed then
  results.count(q, kind, 'hits')
  answer = {1, sealed}
elseif lasts == 0 then
  results.count(q, kind, 'misses')
  answer = {0}
else
  local mine, held = results.mine(q, key, job, fence)
  if mine then
    if not held then
      results.count(q, kind, 'misses')
    end
    results.take(q, key, job, fence, lasts)
    answer = {2}
  else
    results.count(q, kind, 'waits')
    answer = {3, math.max(0, redis.call('PTTL', q.p .. 'rf:' .. key))}
  end
end
ctx.commit(q)
return answer
