-- Workers that are known to be gone no longer count as live; their leases are not touched.
-- keys meta
-- args *workers:text
-- flags allow-oom
-- reply how many did
local q = ctx.open(meta_key)
local rows, gone = redis.call('HMGET', q.p .. 'w', unpack(workers)), 0
for i, worker in ipairs(workers) do
  if rows[i] then
    gone = gone + redis.call('HDEL', q.p .. 'w', worker)
    wake.count(q, -redis.call('SREM', q.p .. 'idle:' .. cmsgpack.unpack(rows[i])[2], worker))
  end
end
return gone
