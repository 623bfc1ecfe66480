-- Allow claims and submits again, and wake those who wait for work.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local was = q.m.paused == 1
local changed = ops.queue(q, 'resume', {paused = 0, draining = 0}, '')
if changed and reason ~= '' then
  q.events[#q.events][6] = ops.facts(reason)
end
local answer = ops.keep(q, operation, {changed and 1 or 0})
ctx.commit(q)
if was and q.m.n_ready > 0 and q.m.idle > 0 then
  wake.count(q, -wake.anyone(q, q.m.n_ready))
end
return answer
