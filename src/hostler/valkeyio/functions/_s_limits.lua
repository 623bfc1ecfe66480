-- Limits that all processes share. A row is {paid for until, nobody before, {lease, ...}}; a lease is
-- {call, its end, what it was charged, how much of that would still come back}. Times are microseconds.

local limits = {POLL = 1000000}

-- The row as it is now. What was charged comes back by time as well as by settling, but only once: a lease gives
-- back no more than was outstanding at any moment since it was charged.
function limits.row(q, name)
  local packed = redis.call('GET', q.p .. 'lim:' .. name)
  local row = packed and cmsgpack.unpack(packed) or {0, 0, {}}
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
  local ends = math.max(row[1], row[2])
  for _, lease in ipairs(row[3]) do
    ends = math.max(ends, lease[2])
  end
  if ends > q.now then
    write.timed(q, 'lim:' .. name, cmsgpack.pack(row), int(math.ceil((ends - q.now) / 1000) + 1000))
  else
    write.drop(q, 'lim:' .. name)
  end
end

function limits.lease(row, call)
  for at, lease in ipairs(row[3]) do
    if lease[1] == call then
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

function limits.take(q, row, want, call, ends)
  if want.lease then
    want.lease[2] = math.max(want.lease[2], ends)
    return
  end
  row[1] = math.max(row[1], q.now) + want.charge
  if want.kind ~= 'rate' then
    table.insert(row[3], {call, ends, want.charge, want.charge})
  end
end
