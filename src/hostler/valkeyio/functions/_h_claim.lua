-- Parts of claim: granting leases, remembering them, and what the worker is told.

local claim = {}

-- A pick turned out to be no ready job (an index that an error left behind) or to have expired: undo it.
local function refuse(q, one, record)
  for i = 1, #one.way[2], 2 do
    write.bump(q, 'use', one.way[2][i], -one.way[2][i + 1])
  end
  if record and one.member ~= one.seq then
    locks.run(q, record, -1)
  end
  if record and record[F.state] == S.ready then
    life.expire(q, one.seq, record)
  else
    line.drop(q, one.tenant, one.lane, one.member)
  end
end

-- One claim more; above every fence that may have been given in an earlier life of the queue.
local function next_fence(q, fence)
  return math.max(fence, q.m.life * FENCE_STEP + fence % FENCE_STEP) + 1
end

local function grant(q, one, record, worker, lease)
  line.leave(q, one.seq, record)
  record[F.fence] = next_fence(q, record[F.fence])
  record[F.worker], record[F.started], record[F.lease] = worker, q.now, lease
  record[F.offer] = one.way[1]
  record[F.taken] = #one.way[2] > 0 and one.way[2] or false
  if record[F.queue_until] > 0 then
    record[F.queue_until] = 0
    write.zadd(q, 'expiry', record[F.deadline] > 0 and record[F.deadline], one.seq)
  end
  choice.remember(q, record, one.way)
  rec.move(q, V.claim, one.seq, record, S.running, one.homely and {affinity = true} or nil)
  write.zadd(q, 'leases', q.now + lease, one.seq)
end

-- Lease what was picked; returns {seq, record} pairs, best first.
function claim.grant(q, picks, worker, lease)
  local seqs, got = {}, {}
  for i, one in ipairs(picks) do
    seqs[i] = one.seq
  end
  for i, record in ipairs(rec.many(q, seqs)) do
    local ends = record and life.ends(record)
    if not record or record[F.state] ~= S.ready or (ends and ends <= q.now) then
      refuse(q, picks[i], record)
    else
      grant(q, picks[i], record, worker, lease)
      got[#got + 1] = {seqs[i], record}
    end
  end
  q.m.t_claimed = q.m.t_claimed + #got
  return got
end

function claim.remember(q, operation, got)
  local held = {}
  for _, pair in ipairs(got) do
    held[#held + 1] = pair[1]
    held[#held + 1] = pair[2][F.fence]
  end
  write.timed(q, 'op:' .. operation, cmsgpack.pack(held), ctx.config(q)[C.operations])
end

-- The leases of an earlier answer that are still held, nil when there was none.
function claim.replay(q, operation, worker)
  local packed = redis.call('GET', q.p .. 'op:' .. operation)
  if not packed then
    return nil
  end
  local held, seqs, got = cmsgpack.unpack(packed), {}, {}
  for i = 1, #held, 2 do
    seqs[#seqs + 1] = held[i]
  end
  q.packed = {}
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and record[F.state] == S.running and record[F.fence] == held[2 * i] and record[F.worker] == worker then
      got[#got + 1] = {seqs[i], record}
      q.packed[seqs[i]] = cmsgpack.pack(record)
    end
  end
  return {claim.reply(q, got)}
end

-- What the worker needs to run them: lanes once each, then per job the record and everything beside it.
function claim.reply(q, got)
  local keys, wanted, listed, rows, jobs = {}, {}, {}, {}, {}
  for _, pair in ipairs(got) do
    keys[#keys + 1] = q.p .. 'p:' .. pair[1]
    if pair[2][F.fence] % FENCE_STEP > 1 then
      keys[#keys + 1] = q.p .. 'g:' .. pair[1]
      keys[#keys + 1] = q.p .. 'c:' .. pair[1]
    end
    if not listed[pair[2][F.lane]] then
      listed[pair[2][F.lane]] = true
      wanted[#wanted + 1] = pair[2][F.lane]
    end
  end
  local values, at = #keys > 0 and redis.call('MGET', unpack(keys)) or {}, 1
  for lane, row in pairs(lanes.rows(q, wanted)) do
    rows[#rows + 1] = lane
    rows[#rows + 1] = row[L.lane]
  end
  for _, pair in ipairs(got) do
    local job = {pair[1], q.packed[pair[1]], values[at] or '', '', '', {}}
    at = at + 1
    if pair[2][F.fence] % FENCE_STEP > 1 then
      job[4], job[5] = values[at] or '', values[at + 1] or ''
      job[6] = redis.call('LRANGE', q.p .. 'a:' .. pair[1], 0, -1)
      at = at + 2
    end
    jobs[#jobs + 1] = job
  end
  return rows, jobs
end
