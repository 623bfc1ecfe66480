-- Jobs that lost workers run apart, so that poison is told from what only ran beside it (policy.suspicion).

local apart = {}

-- 0 when a job lost no worker, 1 when it did, 2 when the next one that it loses is its last.
function apart.level(record)
  if record[F.crashes] == 0 then
    return 0
  end
  return record[F.crashes] + 1 >= record[F.max_crashes] and 2 or 1
end

-- Whether a worker that holds a job of the level `s.beside`, or was just given one, has to pass this one over.
function apart.passes(q, s, record)
  local level = apart.level(record)
  if level == 0 or s.beside == 0 or s.passed >= PASSED_MOST then
    return false
  end
  local ends = record[F.ready_at] + (math.max(level, s.beside) == 2 and APART_LATE or APART_SOON)
  if ends <= q.now then
    return false
  end
  s.passed = s.passed + 1
  if q.m.apart == 0 or ends < q.m.apart then
    q.m.apart = ends
  end
  return true
end

-- What was passed over may be taken by anybody from a moment on: then upkeep wakes those that found nothing else.
function apart.wake(q)
  if q.m.apart > 0 and q.m.apart <= q.now then
    q.m.apart = 0
    q.freed = math.max(q.freed or 0, q.m.n_ready)
  end
end
