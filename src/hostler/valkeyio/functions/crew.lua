-- Begin a round of upkeep, unless another's is fresh or under way: who counts as live in this queue.
-- keys  meta
-- flags allow-oom
-- reply {0} when there is nothing to do, else {1, worker, 1 or 0, worker, ...}
-- 0 stands behind a worker that counts as live for less than four seconds more: it is to be introduced again, so that
-- one that lives and does not claim (it is paused) is never taken for gone between two rounds of upkeep.
local q = ctx.open(meta_key)
for _, at in ipairs({q.m.tick, q.m.turn}) do
  if at > 0 and q.now - at < 500000 then
    return {0}
  end
end
q.m.turn = q.now
ctx.commit(q)
local reply, rows = {1}, redis.call('HGETALL', q.p .. 'w')
for i = 1, #rows, 2 do
  local ends = cmsgpack.unpack(rows[i + 1])[1]
  if ends > q.now then
    reply[#reply + 1] = rows[i]
    reply[#reply + 1] = ends > q.now + 4000000 and 1 or 0
  end
end
return reply
