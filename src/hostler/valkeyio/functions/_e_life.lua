-- What every verb that moves a job shares: leaving an index, entering one, ending an attempt, ending a life.

-- Take a job out of the index of its present state, and give back what it holds.
function life.leave(q, seq, record)
  local state = record[F.state]
  if state == S.ready then
    line.leave(q, seq, record)
  elseif state == S.scheduled then
    write.zrem(q, 'delayed', seq)
  elseif state == S.waiting then
    write.zrem(q, 'waiting', seq)
  elseif state == S.dead then
    write.zrem(q, 'dead', seq)
  elseif state == S.running then
    write.zrem(q, 'leases', seq)
    write.drop(q, 'pv:' .. seq)
    if record[F.cancel] > 0 then
      write.zrem(q, 'cancels', seq)
    end
    room.give(q, record)
    locks.run(q, record, -1)
  end
end

-- Move a job to its place in the line. Its former index must have been left.
function life.ready(q, verb, seq, record, data)
  rec.move(q, verb, seq, record, S.ready, data)
  record[F.ready_at], record[F.waiting_for], record[F.worker] = q.now, false, false
  line.enter(q, seq, record)
end

-- Let a job wait for its time.
function life.schedule(q, verb, seq, record, due, data)
  rec.move(q, verb, seq, record, S.scheduled, data)
  record[F.ready_at], record[F.worker] = due, false
  write.zadd(q, 'delayed', due, seq)
  ctx.due(q, due)
end

-- Let a job wait for somebody, or until `due` (0: for ever).
function life.hold(q, seq, record, reason, due, data)
  rec.move(q, V.wait, seq, record, S.waiting, data)
  record[F.waiting_for], record[F.worker], record[F.ready_at] = reason, false, due
  write.zadd(q, 'waiting', due > 0 and due or 'inf', seq)
  if due > 0 then
    ctx.due(q, due)
  end
end

-- Add the running attempt to the job's history; `failure` is packed or false, `remote` the service's id.
function life.attempt(q, seq, record, outcome, failure, counted, endpoint, remote)
  if counted then
    record[F.attempts] = record[F.attempts] + 1
  end
  write.push(q, 'a:' .. seq, cmsgpack.pack({
    record[F.fence] % FENCE_STEP, record[F.generation], record[F.worker], endpoint or false, record[F.started], q.now,
    outcome, failure or false, counted, remote or false,
  }), ATTEMPTS_KEPT)
end

-- End a job's life: its former index is left, and what it counted for is given back. Its last worker stays named.
function life.finish(q, verb, seq, record, to, data)
  life.leave(q, seq, record)
  rec.move(q, verb, seq, record, to, data)
  record[F.finished], record[F.waiting_for], record[F.cancel] = q.now, false, 0
  write.zadd(q, to == S.dead and 'dead' or 'done', q.now, seq)
  life.count(q, record, -1)
  if record[F.deadline] > 0 or record[F.queue_until] > 0 then
    write.zrem(q, 'expiry', seq)
  end
  local total = 't_' .. STATES[to]
  q.m[total] = q.m[total] + 1
end

-- Expire a job whose deadline or longest wait has passed.
function life.expire(q, seq, record)
  if record[F.state] == S.running then
    local progress = life.remotes(q, {seq})[seq]
    life.attempt(q, seq, record, 'expire', false, false, progress[G.endpoint], progress[G.remote])
  end
  life.finish(q, V.expire, seq, record, S.expired)
end
