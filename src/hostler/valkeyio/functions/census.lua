-- Every announced endpoint whose lease holds, and every mark; nothing but the time when no version is newer.
-- keys meta
-- args version:text
-- flags no-writes
-- reply {now, version} or {now, version, {endpoint, row, end, ...}, {endpoint, mark, ...}}
-- The version is a number of the registry's and how many leases hold, so that one that runs out is a change at once.
local q = ctx.open(meta_key)
local held = redis.call('ZCOUNT', q.p .. 'epends', '(' .. string.format('%.0f', q.now), '+inf')
local current = (redis.call('GET', q.p .. 'epv') or '0') .. '.' .. string.format('%.0f', held)
if current == version then
  return {q.now, current}
end
local rows, ids = {}, redis.call('ZRANGE', q.p .. 'epends', '(' .. string.format('%.0f', q.now), '+inf', 'BYSCORE')
local packed = #ids > 0 and redis.call('HMGET', q.p .. 'endpoints', unpack(ids)) or {}
local ends = #ids > 0 and redis.call('ZMSCORE', q.p .. 'epends', unpack(ids)) or {}
for i, endpoint in ipairs(ids) do
  if packed[i] then
    rows[#rows + 1] = endpoint
    rows[#rows + 1] = packed[i]
    rows[#rows + 1] = ends[i]
  end
end
return {q.now, current, rows, redis.call('HGETALL', q.p .. 'epmarks')}
