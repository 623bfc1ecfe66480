-- Parts of every life: what a job counts for, its lane, its remote work, its end.

-- A job begins (1) or stops (-1) to count against the limits of its queue, tenant and lane.
function life.count(q, record, delta)
  q.m.bytes = q.m.bytes + delta * record[F.size]
  write.bump(q, 'td', record[F.tenant], delta)
  write.bump(q, 'lc', record[F.lane], delta)
end

-- Move a job to another lane while it is in no line.
function life.relane(q, record, lane)
  if lane and lane ~= record[F.lane] then
    write.bump(q, 'lc', record[F.lane], -1)
    write.bump(q, 'lc', lane, 1)
    record[F.lane] = lane
  end
end

-- The services' ids of the work of these jobs, by job; read in one call.
function life.remotes(q, seqs)
  local keys, found = {}, {}
  for i, seq in ipairs(seqs) do
    keys[i] = q.p .. 'g:' .. seq
  end
  if #keys > 0 then
    local got = redis.call('MGET', unpack(keys))
    for i, seq in ipairs(seqs) do
      found[seq] = got[i] and cmsgpack.unpack(got[i]) or {false, false, false, 0, 0}
    end
  end
  return found
end

-- When a job expires: its deadline or the end of its queue wait, whichever is first; nil when never.
function life.ends(record)
  local deadline, wait = record[F.deadline], record[F.queue_until]
  if deadline > 0 and wait > 0 then
    return math.min(deadline, wait)
  end
  return deadline > 0 and deadline or (wait > 0 and wait or nil)
end
