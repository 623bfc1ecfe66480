-- All that is kept of these jobs, as it is at one moment.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply list of {seq, record, envelope, progress, result, {attempt, ...}, packed lane or '', 1 when unworkable}
-- Jobs that are not there are left out; at most 100 at a time.
local q = ctx.open(meta_key)
local reply, keys = {}, {}
for _, seq in ipairs(seqs) do
  for _, kind in ipairs({'j:', 'p:', 'g:', 's:'}) do
    keys[#keys + 1] = q.p .. kind .. seq
  end
end
if #keys == 0 then
  return reply
end
local got, numbers, at = redis.call('MGET', unpack(keys)), {}, {}
for i, seq in ipairs(seqs) do
  local packed = got[4 * i - 3]
  if packed then
    local record = cmsgpack.unpack(packed)
    local attempts = record[F.fence] > 0 and redis.call('LRANGE', q.p .. 'a:' .. seq, 0, -1) or {}
    reply[#reply + 1] = {seq, packed, got[4 * i - 2] or '', got[4 * i - 1] or '', got[4 * i] or '', attempts, '', 0}
    numbers[#numbers + 1] = record[F.lane]
    at[#at + 1] = record[F.state] == S.ready
  end
end
if #numbers > 0 then
  local rows = redis.call('HMGET', q.p .. 'lanes', unpack(numbers))
  local marks = redis.call('HMGET', q.p .. 'un', unpack(numbers))
  for i, one in ipairs(reply) do
    one[7] = rows[i] or ''
    one[8] = marks[i] and at[i] and 1 or 0
  end
end
return reply
