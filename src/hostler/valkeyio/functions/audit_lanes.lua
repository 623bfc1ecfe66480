-- Which of these jobs stand in a lane that is gone: no worker ever finds them there.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply {seq, sentence, seq, sentence, ...}
-- An error between a lane's row and its count leaves a lane that looks empty, which a sweep takes away.
local q = ctx.open(meta_key)
local found, live, numbers = {}, {}, {}
for i, record in ipairs(rec.many(q, seqs)) do
  if record and record[F.finished] == 0 then
    live[#live + 1] = seqs[i]
    numbers[#numbers + 1] = record[F.lane]
  end
end
local rows = #live > 0 and redis.call('HMGET', q.p .. 'lanes', unpack(numbers)) or {}
for i, seq in ipairs(live) do
  if not rows[i] then
    found[#found + 1] = seq
    found[#found + 1] = 'job ' .. seq .. ' stands in lane ' .. int(numbers[i]) .. ', which is gone'
  end
end
return found
