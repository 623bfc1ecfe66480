-- Limits that all processes share. A row is {paid for until, nobody before, {lease, ...}, how it is written, next moment
-- in its line, pace of that line, last grant}; a lease is {call, its end, what it was charged, how much of that would
-- still come back, fence, its begin}. Times are microseconds.
-- `limends` has the names of all rows by their end.

local limits = {POLL = 1000000}

-- The row as it is now. What was charged comes back by time as well as by settling, but only once: a lease gives
-- back no more than was outstanding at any moment since it was charged.
function limits.row(q, name)
  local packed = redis.call('GET', q.p .. 'lim:' .. name)
  local row = packed and cmsgpack.unpack(packed) or {0, 0, {}, '', 0, 0, 0}
  local ahead, leases = math.max(0, row[1] - q.now), {}
  for _, lease in ipairs(row[3]) do
    if lease[2] > q.now then
      lease[4] = math.min(lease[4], ahead)
      leases[#leases + 1] = lease
    end
  end
  row[3] = leases
  return row
end

-- Keep a row for as long as it says anything.
function limits.keep(q, name, row)
  local ends = math.max(row[1], row[2], row[5])
  for _, lease in ipairs(row[3]) do
    ends = math.max(ends, lease[2])
  end
  if ends > q.now then
    write.timed(q, 'lim:' .. name, cmsgpack.pack(row), int(math.ceil((ends - q.now) / 1000) + 1000))
    write.zadd(q, 'limends', ends, name)
  else
    write.drop(q, 'lim:' .. name)
    write.zrem(q, 'limends', name)
  end
end

-- Forget the names of rows that are gone, some with each call; before any row is kept.
function limits.trim(q)
  for _, name in ipairs(redis.call('ZRANGE', q.p .. 'limends', '-inf', int(q.now), 'BYSCORE', 'LIMIT', 0, 16)) do
    write.zrem(q, 'limends', name)
  end
end

-- The lease of a call that this holder may use: its own, or that of one before it.
function limits.lease(row, call, fence)
  for at, lease in ipairs(row[3]) do
    if lease[1] == call and lease[5] <= fence then
      return lease, at
    end
  end
end

-- How long until this may be taken, 0 for now.
function limits.after(q, row, want)
  local held, ahead = math.max(0, row[2] - q.now), math.max(0, row[1] - q.now)
  if want.lease then
    return 0
  end
  if want.kind == 'in_flight' then
    if #row[3] < want.allow then
      return held
    end
    local first = limits.POLL
    for _, lease in ipairs(row[3]) do
      first = math.min(first, lease[2] - q.now)
    end
    return math.max(held, first)
  end
  -- What fits at all goes when everything is paid, lest rounding keep it out for ever.
  return math.max(held, math.min(ahead, ahead + want.charge - want.allow), 0)
end

function limits.take(q, row, want, call, fence, ends)
  row[4] = want.about
  if want.lease then
    want.lease[2], want.lease[5] = math.max(want.lease[2], ends), fence
    return
  end
  limits.pace(q, row, want)
  row[1] = math.max(row[1], q.now) + want.charge
  if want.kind ~= 'rate' then
    table.insert(row[3], {call, ends, want.charge, want.charge, fence, q.now})
  end
end
