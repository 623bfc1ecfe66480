-- Upkeep of the registry: lost workers are an event each, old ones are forgotten, the stream is bounded.
-- keys meta
-- args most:int events_kept:int
-- flags allow-oom
-- reply how often workers came, went, began or ceased to take work, or got other queues
-- Done at most every half second, whoever asks.
local q = ctx.open(meta_key)
if q.now - q.m.tick < 500000 and q.m.tick > 0 then
  return int(q.m.roll)
end
-- After another server took over, everybody gets ten seconds to be heard.
if q.now - q.m.heir < 10000000 then
  q.m.tick = q.now
  ctx.commit(q)
  return int(q.m.roll)
end
local lost, gone = staff.lapse(q, most), places.lapse(q, most)
local more = staff.forget(q, most) == most or lost == most or gone == most
if not more then
  q.m.tick = q.now
end
ctx.commit(q)
if q.m.off > events_kept then
  redis.call('XTRIM', q.p .. 'ev', 'MAXLEN', '~', events_kept)
end
return int(q.m.roll)
