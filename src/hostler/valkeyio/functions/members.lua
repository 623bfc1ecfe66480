-- The jobs in some indexes by time (`dead`, `done`, `leases`, `delayed`, `waiting`), when they are few.
-- keys meta
-- args most:int *indexes:text
-- flags no-writes
-- reply {how many, seq, ...}; no seq when there are more than `most`
local q = ctx.open(meta_key)
local total, reply = 0, {0}
for _, name in ipairs(indexes) do
  total = total + redis.call('ZCARD', q.p .. name)
end
reply[1] = total
for _, name in ipairs(total <= most and indexes or {}) do
  for _, seq in ipairs(redis.call('ZRANGE', q.p .. name, 0, -1)) do
    reply[#reply + 1] = seq
  end
end
return reply
