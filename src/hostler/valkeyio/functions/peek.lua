-- The records of the jobs with the numbers from `last` downwards, or of those named.
-- keys meta
-- args last:int most:int *seqs:text
-- flags no-writes
-- reply {latest number, seq, record, seq, record, ...}; only those that are there
local q = ctx.open(meta_key)
local names = seqs
if #names == 0 then
  local top = last > 0 and math.min(last, q.m.seq) or q.m.seq
  for seq = top, math.max(SEQ_BASE + 1, top - most + 1), -1 do
    names[#names + 1] = int(seq)
  end
end
local reply, keys = {int(q.m.seq)}, {}
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
