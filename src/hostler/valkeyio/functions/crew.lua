-- Who counts as live in this queue; nobody has to look while the last upkeep is fresh.
-- keys meta
-- flags no-writes
-- reply {0} when upkeep was done less than half a second ago, else {1, worker, 1 or 0, worker, ...}
-- 0 stands behind a worker that counts as live for less than five seconds more: it is to be introduced again, so that
-- one that lives and does not claim (it is paused) is never taken for gone between two rounds of upkeep.
local q = ctx.open(meta_key)
if q.m.tick > 0 and q.now - q.m.tick < 500000 then
  return {0}
end
local reply, rows = {1}, redis.call('HGETALL', q.p .. 'w')
for i = 1, #rows, 2 do
  local ends = cmsgpack.unpack(rows[i + 1])[1]
  if ends > q.now then
    reply[#reply + 1] = rows[i]
    reply[#reply + 1] = ends > q.now + 5000000 and 1 or 0
  end
end
return reply
