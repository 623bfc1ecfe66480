-- End attempts, in the order given; each is judged by itself, and a stale fence changes nothing.
-- keys  meta
-- args  worker:text items:pack lanes_given:pack
-- flags allow-oom
-- reply {code, state, ...}: 1 accepted, 0 refused; the job's state now (0 when there is no such job)
-- An item is {seq, fence, ending, counted, overload, delay, lane (from 1, or 0), result, failure, endpoint, reason};
-- delay in microseconds (for `hold` until it wakes, 0 for ever), the last four text or false.
local q = ctx.open(meta_key)
local seqs, unfinished, replies = {}, {}, {}
for i, item in ipairs(items) do
  seqs[i] = item[1]
  if item[3] ~= E.succeed then
    unfinished[#unfinished + 1] = item[1]
  end
end
local found = lanes.look_up(q, lanes_given)
local records, progress = rec.many(q, seqs), life.remotes(q, unfinished)
for i, item in ipairs(items) do
  local record, seq, code = records[i], seqs[i], 0
  if record and record[F.state] == S.running and record[F.fence] == item[2] and record[F.worker] == worker then
    settle.apply(q, seq, record, item, progress[seq] or {}, found)
    code = 1
  elseif record and record[F.settled_fence] == item[2] and record[F.settled_ending] == item[3] then
    code = 1
  else
    settle.reject(q, seq, record, item[2], worker)
  end
  replies[#replies + 1] = code
  replies[#replies + 1] = record and record[F.state] or 0
end
ctx.commit(q)
return replies
