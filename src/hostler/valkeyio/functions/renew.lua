-- Extend the leases that a worker still holds, and say which are lost or were asked to stop.
-- keys  meta
-- args  worker:text class_name:text held:pack covers:pack upto:int
-- flags allow-oom
-- reply {now, draining, earliest end or 0, {status, ...}, {upto, {lane, row, ...}}}; 0 lost, 1 held, 2 asked to stop
-- `held` is seq, fence, seq, fence, ...; `class_name` is empty when the worker never claimed here.
local q = ctx.open(meta_key)
local rest = {}
if class_name ~= '' then
  local mine = class.open(q, class_name)
  if upto > mine.known then
    mine = class.cover(q, class_name, covers, upto)
  end
  class.present(q, worker, class_name)
  rest = mine.known < q.m.lane and class.unjudged(q, mine, 200) or {}
end
local seqs, status, words, earliest = {}, {}, {}, 0
for i = 1, #held, 2 do
  seqs[#seqs + 1] = held[i]
end
local ends = #seqs > 0 and redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs)) or {}
for i, record in ipairs(rec.many(q, seqs)) do
  status[i] = 0
  if record and record[F.state] == S.running and record[F.fence] == held[2 * i] and record[F.worker] == worker then
    status[i] = record[F.cancel] > 0 and 2 or 1
    local stop = math.max(tonumber(ends[i] or '0'), q.now + record[F.lease])
    write.zadd(q, 'leases', stop, seqs[i])
    earliest = earliest == 0 and stop or math.min(earliest, stop)
  end
end
ctx.commit(q)
return {q.now, q.m.draining, earliest, status, rest}
