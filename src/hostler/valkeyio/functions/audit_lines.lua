-- Compare the heads of these lines, and who is listed for them, with the lines themselves.
-- keys meta
-- args repair:flag *leaves:text
-- flags allow-oom
-- reply list of sentences
-- A leaf is <lane>:<tenant>.
local q = ctx.open(meta_key)
local found = {}
for _, leaf in ipairs(leaves) do
  local lane, tenant = string.match(leaf, '^(%d+):(.*)$')
  local head = redis.call('ZRANGE', q.p .. 'r:' .. leaf, 0, 0, 'WITHSCORES')[2]
  local listed = redis.call('ZSCORE', q.p .. 'tl:' .. tenant, lane)
  local shown = redis.call('SISMEMBER', q.p .. 'lt:' .. lane, tenant) == 1
  local passed = redis.call('ZSCORE', q.p .. 'TN', tenant)
  if head and (tonumber(listed or '-1') ~= tonumber(head) or not shown or not passed) then
    found[#found + 1] = 'the line r:' .. leaf .. ' is not listed as it is'
    if repair then
      redis.call('ZADD', q.p .. 'tl:' .. tenant, head, lane)
      redis.call('SADD', q.p .. 'lt:' .. lane, tenant)
      redis.call('ZADD', q.p .. 'TN', 'NX', q.m.V, tenant)
      for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
        redis.call('ZADD', q.p .. 'TN:' .. name, 'NX', q.m.V, tenant)
      end
    end
  elseif not head and (listed or shown) then
    found[#found + 1] = 'the line r:' .. leaf .. ' is empty but listed'
    if repair then
      redis.call('ZREM', q.p .. 'tl:' .. tenant, lane)
      redis.call('SREM', q.p .. 'lt:' .. lane, tenant)
      if redis.call('EXISTS', q.p .. 'tl:' .. tenant) == 0 then
        redis.call('ZREM', q.p .. 'TN', tenant)
      end
    end
  end
end
return found
