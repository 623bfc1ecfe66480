-- Compare every counter with a recount that was made while the queue stood at `moves`: its last offset, and the jobs
-- that were removed besides, since what is kept no longer leaves without an event.
-- keys meta
-- args moves:int repair:flag *counted:text
-- flags allow-oom
-- reply {1, sentence, ...}, or {0} when the queue has moved since
-- `counted` is hash, field, number, ...; a hash with the field '' is compared though nothing counts for it.
local q = ctx.open(meta_key)
if q.m.off + q.m.t_purged ~= moves then
  return {0}
end
local should, reply = {td = {}, lc = {}, lr = {}, use = {}, meta = {}}, {1}
for i = 1, #counted, 3 do
  local fields = should[counted[i]] or {}
  should[counted[i]] = fields
  if counted[i + 1] ~= '' then
    fields[counted[i + 1]] = tonumber(counted[i + 2])
  end
end
for _, name in ipairs(META) do
  if name == 'bytes' or string.sub(name, 1, 2) == 'n_' then
    local value = should.meta[name] or 0
    if audit.number(reply, name, q.m[name], value) and repair then
      q.m[name] = value
    end
  end
end
local last = events.last(q) or q.m.off
if audit.number(reply, 'off', q.m.off, last) and repair then
  q.m.off = last
end
should.meta = nil
for hash, fields in pairs(should) do
  local is, got = {}, redis.call('HGETALL', q.p .. hash)
  for i = 1, #got, 2 do
    is[got[i]] = tonumber(got[i + 1])
    fields[got[i]] = fields[got[i]] or 0
  end
  for field, value in pairs(fields) do
    local differs = audit.number(reply, hash .. ' ' .. field, is[field] or 0, value)
    if differs and repair and value > 0 then
      redis.call('HSET', q.p .. hash, field, value)
    elseif differs and repair then
      redis.call('HDEL', q.p .. hash, field)
    end
  end
end
if repair then
  -- Whoever was parked beside a key that has room takes its place now: nothing else may ever touch that key.
  for hash in pairs(should) do
    if string.sub(hash, 1, 2) == 'k:' then
      locks.state(q, string.sub(hash, 3))
    end
  end
  ctx.commit(q)
end
return reply
