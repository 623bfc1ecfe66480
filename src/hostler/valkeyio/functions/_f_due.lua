-- Time's part: jobs that are due become ready, lost leases go back to the line. Slices, never everything.

local due = {}

function due.take(q, key, most)
  return redis.call('ZRANGE', q.p .. key, '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
end

function due.next_of(q, key, skip)
  local got = redis.call('ZRANGE', q.p .. key, skip, skip, 'WITHSCORES')
  return got[2] and got[2] ~= 'inf' and tonumber(got[2]) or nil
end

-- Wake jobs that are due, at most `most`; returns how many.
function due.promote(q, most)
  if q.m.due == 0 or q.m.due > q.now then
    return 0
  end
  local delayed = due.take(q, 'delayed', most)
  local waiting = due.take(q, 'waiting', most - #delayed)
  q.m.due = 0
  for key, n in pairs({delayed = #delayed, waiting = #waiting}) do
    local at = due.next_of(q, key, n)
    if at then
      ctx.due(q, at)
    end
  end
  local seqs = {}
  for _, list in ipairs({delayed, waiting}) do
    for _, seq in ipairs(list) do
      seqs[#seqs + 1] = seq
    end
  end
  for i, record in ipairs(rec.many(q, seqs)) do
    local state = record and record[F.state]
    if state == S.scheduled or state == S.waiting then
      life.leave(q, seqs[i], record)
      life.ready(q, V.wake, seqs[i], record)
    else
      write.zrem(q, i <= #delayed and 'delayed' or 'waiting', seqs[i])
    end
  end
  return #seqs
end

-- Microseconds until a job may be due, -1 when none waits.
function due.left(q)
  return q.m.due == 0 and -1 or math.max(0, q.m.due - q.now)
end

local function lost_failure(record)
  return cmsgpack.pack({class = 'lost', message = 'the lease of worker ' .. (record[F.worker] or '?') .. ' ran out'})
end

-- Take a lease away that ran out. `charged` is false when it ran out in the grace after a restart.
local function lose(q, seq, record, charged, progress)
  local worker = record[F.worker]
  if charged then
    record[F.crashes] = record[F.crashes] + 1
    record[F.bad_workers] = record[F.bad_workers] or {}
    table.insert(record[F.bad_workers], worker)
  end
  q.m.t_reaped = q.m.t_reaped + 1
  local cancelled, failure = record[F.cancel] > 0, lost_failure(record)
  life.attempt(
    q, seq, record, cancelled and 'cancel' or 'reap', failure, false, progress[G.endpoint], progress[G.remote]
  )
  if cancelled then
    life.finish(q, V.cancel, seq, record, S.cancelled)
  elseif record[F.crashes] >= record[F.max_crashes] then
    life.finish(q, V.bury, seq, record, S.dead, {class = 'poison', workers = record[F.bad_workers]})
  else
    life.leave(q, seq, record)
    life.ready(q, V.reap, seq, record, {class = 'lost', charged = charged})
  end
end

-- Reap leases that ran out, at most `most`; returns how many.
function due.reap(q, most)
  local seqs = due.take(q, 'leases', most)
  if #seqs == 0 then
    return 0
  end
  local ends = redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs))
  local grace = redis.call('ZMSCORE', q.p .. 'grace', unpack(seqs))
  local progress = life.remotes(q, seqs)
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and record[F.state] == S.running then
      lose(q, seqs[i], record, grace[i] ~= ends[i], progress[seqs[i]])
    else
      write.zrem(q, 'leases', seqs[i])
    end
  end
  return #seqs
end
