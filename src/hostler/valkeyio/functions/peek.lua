-- The records of the jobs with the numbers from `last` downwards, or of those named.
-- keys meta
-- args last:int most:int *seqs:text
-- flags no-writes
-- reply {number below which to go on, seq, record, seq, record, ...}; only those that are there
local q = ctx.open(meta_key)
local names, below = seqs, SEQ_BASE
if #names == 0 then
  local top = last > 0 and math.min(last, q.m.seq) or q.m.seq
  -- Numbers between two lives of the queue were never given.
  local life = redis.call('ZRANGE', q.p .. 'lives', int(top), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
  local first = (tonumber(life[2]) or SEQ_BASE) + 1
  local lowest = math.max(first, top - most + 1)
  for seq = top, lowest, -1 do
    names[#names + 1] = int(seq)
  end
  if lowest > first then
    below = lowest
  elseif life[1] and tonumber(life[1]) > SEQ_BASE then
    below = tonumber(life[1]) + 1
  end
end
local reply, keys = {int(below)}, {}
for i, seq in ipairs(names) do
  keys[i] = q.p .. 'j:' .. seq
end
if #keys > 0 then
  for i, packed in ipairs(redis.call('MGET', unpack(keys))) do
    if packed then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = packed
    end
  end
end
return reply
