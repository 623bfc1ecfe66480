-- The queue's scalars and what follows from its indexes.
-- keys meta
-- args most:int
-- flags no-writes
-- reply {{name, value, ...}, lanes, tenants, workers, unworkable ready jobs, oldest ready at or 0}
-- The oldest is looked for among the heads of the lines of at most `most` tenants and 16 of their lanes each.
local q = ctx.open(meta_key)
local scalars = {}
for _, name in ipairs(META) do
  scalars[#scalars + 1] = name
  scalars[#scalars + 1] = TEXT[name] and (q.m[name] or '') or int(q.m[name])
end
local marked, unworkable = redis.call('HKEYS', q.p .. 'un'), 0
for first = 1, #marked, 1000 do
  local some = {unpack(marked, first, math.min(first + 999, #marked))}
  for _, count in ipairs(redis.call('HMGET', q.p .. 'lr', unpack(some))) do
    unworkable = unworkable + tonumber(count or '0')
  end
end
local seqs = {}
for _, tenant in ipairs(redis.call('ZRANGE', q.p .. 'TN', 0, most - 1)) do
  for _, lane in ipairs(redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 15)) do
    local head = redis.call('ZRANGE', q.p .. 'r:' .. lane .. ':' .. tenant, 0, 0)[1]
    seqs[#seqs + 1] = head and string.match(head, '^%d+')
  end
end
local oldest = 0
for first = 1, #seqs, 1000 do
  for _, record in ipairs(rec.many(q, {unpack(seqs, first, math.min(first + 999, #seqs))})) do
    if record and (oldest == 0 or record[F.ready_at] < oldest) then
      oldest = record[F.ready_at]
    end
  end
end
local workers = 0
for _ in pairs(class.workers(q)) do
  workers = workers + 1
end
local live = redis.call('HLEN', q.p .. 'lc')
return {scalars, live, redis.call('HLEN', q.p .. 'td'), workers, unworkable, int(oldest)}
