-- Do one slice of upkeep; at most every half second, unless the last one left work behind.
-- keys  meta
-- args  roll:int
-- flags allow-oom
-- reply {1 when more is left to do at once, 2 when the last one is fresh, else 0; microseconds to a job that may be due}
-- `roll` is that of the registry when workers were looked up for this round; -1 when they did not have to be, -2 when
-- they could not be.
local q = ctx.open(meta_key)
if q.m.tick > 0 and q.now - q.m.tick < 500000 then
  return {2, -1}
end
q.m.turn = 0
if roll ~= -1 then
  q.m.roll, q.m.mustered = roll, roll < 0 and 0 or q.now
end
local cfg = ctx.config(q)
if upkeep.grace(q) then
  q.m.tick = q.now - 500000
  ctx.commit(q)
  return {1, due.left(q)}
end
local most = math.max(due.promote(q, 100), due.reap(q, 100), upkeep.escalate(q), upkeep.expire(q), upkeep.retire(q, cfg))
apart.wake(q)
ctx.commit(q)
local more = most >= 100
if q.m.cursor ~= 0 or q.now - q.m.sweep >= 1000000 then
  if q.m.cursor == 0 then
    q.m.sweep = q.now
    sweep.passes(q)
    upkeep.trim(q, cfg)
  end
  local known, going = sweep.workers(q)
  more = sweep.lanes(q, known, 100) or going or more
end
q.m.tick = more and q.now - 500000 or q.now
ctx.commit(q)
return {more and 1 or 0, due.left(q)}
