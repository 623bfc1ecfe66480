-- The registry of workers: rows by id, leases by end, those that are gone for an hour, each move an event.
-- A row is {state, seen, reason, sealed announcement, queues}. `q` is the registry's own context, opened like a queue's.

local staff = {}
local GONE_KEPT = 3600000000

function staff.row(q, worker)
  local packed = redis.call('HGET', q.p .. 'workers', worker)
  return packed and cmsgpack.unpack(packed)
end

function staff.alive(q, worker)
  local ends = redis.call('ZSCORE', q.p .. 'alive', worker)
  return ends and tonumber(ends) > q.now
end

local TAKING = {ready = true, busy = true}

-- Queues have to look who is there.
function staff.changed(q)
  q.m.roll = q.m.roll + 1
end

-- Store a row and say the move.
function staff.move(q, worker, row, state, reason)
  if not (TAKING[row[1]] and TAKING[state]) then
    staff.changed(q)
  end
  events.say(q, 'worker', false, nil, worker, {from = row[1] or '', to = state, reason = reason})
  row[1], row[3] = state, reason
end

function staff.keep(q, worker, row)
  write.hset(q, 'workers', worker, cmsgpack.pack(row))
end

-- A worker is no longer live; it stays listed for an hour.
function staff.bury(q, worker, row, state, reason, since)
  staff.move(q, worker, row, state, reason)
  staff.keep(q, worker, row)
  write.zrem(q, 'alive', worker)
  write.zadd(q, 'gone', since, worker)
  write.drop(q, 'cmd:' .. worker)
end

-- Bury those whose lease ran out, at most `most`; returns how many.
function staff.lapse(q, most)
  local ids = redis.call('ZRANGE', q.p .. 'alive', '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
  if #ids == 0 then
    return 0
  end
  local ends = redis.call('ZMSCORE', q.p .. 'alive', unpack(ids))
  local rows = redis.call('HMGET', q.p .. 'workers', unpack(ids))
  for i, worker in ipairs(ids) do
    local row = rows[i] and cmsgpack.unpack(rows[i]) or {false, 0, '', ''}
    staff.bury(q, worker, row, 'lost', 'its lease ran out', tonumber(ends[i]))
  end
  return #ids
end

-- Forget those who have been gone for an hour, at most `most`.
function staff.forget(q, most)
  local old = redis.call('ZRANGE', q.p .. 'gone', '-inf', q.now - GONE_KEPT, 'BYSCORE', 'LIMIT', 0, most)
  if #old > 0 then
    redis.call('HDEL', q.p .. 'workers', unpack(old))
    redis.call('ZREM', q.p .. 'gone', unpack(old))
  end
  return #old
end
