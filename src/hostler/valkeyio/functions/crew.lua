-- Begin a round of upkeep, unless another's is fresh or under way: who counts as live in this queue.
-- keys  meta
-- flags allow-oom
-- reply {0} when there is nothing to do, else
-- {1, roll and microseconds since workers were last looked up, worker, how long it counts as live, worker, ...}
-- That is 0 for less than four seconds more, or no more: it is to be introduced again before this round goes on, so that
-- one that lives and does not claim (it is paused) is never taken for gone; 1 for less than eight seconds, 2 for longer.
local now, tick, turn = ctx.glance(meta_key, 'tick', 'turn')
local latest = math.max(tick, turn)
if latest > 0 and now - latest < 500000 then
  return {0}
end
local q = ctx.open(meta_key)
q.m.turn = q.now
ctx.commit(q)
local reply, rows = {1, int(q.m.roll), int(q.now - q.m.mustered)}, redis.call('HGETALL', q.p .. 'w')
for i = 1, #rows, 2 do
  reply[#reply + 1] = rows[i]
  reply[#reply + 1] = math.max(0, math.min(2, math.floor((cmsgpack.unpack(rows[i + 1])[1] - q.now) / 4000000)))
end
return reply
