-- Job records: read many at once, changed in place, written once.

-- A record from its packed form. Reading the elements as a stream, behind the array's head of three bytes, gives Lua
-- their number beforehand; a table that grows element by element takes twice as long.
local function opened(_, ...)
  return {...}
end

function rec.unpack(packed)
  return opened(cmsgpack.unpack_limit(packed, #BLANK, 3))
end

-- Read records into `q.records` and return them in order; `false` for a job that is not there.
function rec.many(q, seqs)
  local keys, missing = {}, {}
  for _, seq in ipairs(seqs) do
    if q.records[seq] == nil then
      q.records[seq] = false
      missing[#missing + 1] = seq
      keys[#keys + 1] = q.p .. 'j:' .. seq
    end
  end
  if #keys > 0 then
    local got = redis.call('MGET', unpack(keys))
    for i, seq in ipairs(missing) do
      q.records[seq] = got[i] and rec.unpack(got[i]) or false
    end
  end
  local found = {}
  for i = 1, #seqs do
    found[i] = q.records[seqs[i]]
  end
  return found
end

function rec.one(q, seq)
  return rec.many(q, {seq})[1]
end

-- A new record: nothing in it yet.
function rec.new()
  return {unpack(BLANK)}
end

-- Remember that a record changed.
function rec.touch(q, seq, record)
  q.records[seq] = record
  q.touched = q.touched or {}
  q.touched[seq] = true
end

-- Forget a record: the job is purged.
function rec.drop(q, seq)
  q.records[seq] = false
  if q.touched then
    q.touched[seq] = nil
  end
  for _, kind in ipairs({'j:', 'p:', 'a:', 'g:', 'c:', 's:', 'pv:'}) do
    write.drop(q, kind .. seq)
  end
end

-- Hand the changed records to the one MSET.
function rec.flush(q)
  q.packed = {}
  for seq in pairs(q.touched or {}) do
    q.packed[seq] = cmsgpack.pack(q.records[seq])
    write.put(q, 'j:' .. seq, q.packed[seq])
  end
  q.touched = nil
end

local function count(q, state, delta)
  if state > 0 then
    local name = COUNTS[state]
    q.m[name] = q.m[name] + delta
  end
end

-- Move a job as the life table allows: guard, counters, event. The indexes are the caller's business.
function rec.move(q, verb, seq, record, to, data)
  local from = record[F.state]
  if not MOVES[verb * 100 + from * 10 + to] then
    error('HOSTLER no move ' .. verb .. ' from ' .. from .. ' to ' .. to)
  end
  count(q, from, -1)
  count(q, to, 1)
  record[F.state] = to
  rec.touch(q, seq, record)
  return events.emit(q, verb, seq, record, data)
end

-- A purged job no longer counts anywhere.
function rec.uncount(q, record)
  count(q, record[F.state], -1)
end
