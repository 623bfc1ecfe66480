-- What stands between one job and its start.
-- keys meta
-- args seq:text
-- flags no-writes
-- reply {0} when there is no such job, else {1, record, envelope, packed lane, now, paused, draining, reason,
-- lane unworkable since or 0, ahead or -1, active tenants, weight in thousandths of all active, running of its key,
-- limit of the key, {pool|amount, taken in thousandths, ...}, {attempt, ...}}
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record then
  return {0}
end
local cfg, lane, tenant = ctx.config(q), record[F.lane], record[F.tenant]
local ahead = -1
if record[F.state] == S.ready then
  local mine, count = {}, 0
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    mine[name] = true
  end
  local lanes_of = redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 999)
  ahead = 0
  for _, other in ipairs(lanes_of) do
    local shared = next(mine) == nil or tonumber(other) == lane
    for _, name in ipairs(shared and {} or redis.call('SMEMBERS', q.p .. 'cls:' .. other)) do
      shared = shared or mine[name]
    end
    if shared then
      local leaf, vt = q.p .. 'r:' .. other .. ':' .. tenant, int(record[F.vt])
      count = count + redis.call('ZCOUNT', leaf, '-inf', '(' .. vt)
      for _, member in ipairs(redis.call('ZRANGE', leaf, vt, vt, 'BYSCORE', 'LIMIT', 0, 1000)) do
        count = count + (string.match(member, '^%d+') < seq and 1 or 0)
      end
    end
  end
  ahead = count
end
local weights, total = cfg[C.weights], 0
local active = redis.call('ZRANGE', q.p .. 'TN', 0, 999)
for _, name in ipairs(active) do
  total = total + (weights[name] or 1)
end
local running = record[F.ckey] and tonumber(redis.call('HGET', q.p .. 'k:' .. record[F.ckey], 'r') or '0') or 0
local share = total > 0 and math.floor(1000 * (weights[tenant] or 1) / total) or 1000
local packed = redis.call('HGET', q.p .. 'lanes', lane) or ''
return {
  1, redis.call('GET', q.p .. 'j:' .. seq), redis.call('GET', q.p .. 'p:' .. seq) or '', packed, int(q.now), q.m.paused,
  q.m.draining, q.m.reason or '', redis.call('HGET', q.p .. 'un', lane) or '0', ahead, #active, share, running,
  cfg[C.key_running], redis.call('HGETALL', q.p .. 'use'),
  redis.call('LRANGE', q.p .. 'a:' .. seq, 0, -1),
}
