-- Events: collected by a call, written as one stream entry with consecutive offsets.

local function keep(record, offset)
  local offsets = record[F.events]
  offsets[#offsets + 1] = offset
  if #offsets > EVENTS_KEPT then
    table.remove(offsets, 1)
  end
end

-- Add one event; a job's own list of offsets grows with it. `data` is a table, packed bytes or nil.
function events.emit(q, verb, seq, record, data)
  local offset = q.m.off + 1
  q.m.off = offset
  local state, fence, worker = 0, 0, false
  if record then
    state, fence, worker = record[F.state], record[F.fence], record[F.worker]
    keep(record, offset)
  end
  q.events[#q.events + 1] = {verb, seq and tonumber(seq) - SEQ_BASE, state, fence, worker, data or false}
  return offset
end

-- Add an event that moves nothing, so it has no state; `worker` is who did it.
function events.say(q, verb, seq, record, worker, data)
  local offset = q.m.off + 1
  q.m.off = offset
  local fence = record and record[F.fence] or 0
  q.events[#q.events + 1] = {verb, seq and tonumber(seq) - SEQ_BASE, 0, fence, worker or false, data or false}
  return offset
end

-- The same, and the job's timeline shows it.
function events.note(q, verb, seq, record, worker, data)
  local offset = events.say(q, verb, seq, record, worker, data)
  keep(record, offset)
  rec.touch(q, seq, record)
  return offset
end

-- The offset of the last event in the stream; nil when none is kept.
function events.last(q)
  local last = redis.call('XREVRANGE', q.p .. 'ev', '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '^%d+')) + #cmsgpack.unpack(last[2][2])[2] - 1
end

-- Scalars that are behind the stream (they were lost, or written by hand): count on from the stream.
local function catch_up(q)
  local ends = events.last(q)
  if ends and ends > q.was.off then
    redis.call('HSET', q.key, 'off', int(ends))
  end
end

-- Write them; a call whose offsets are taken fails, and the next one counts on above them.
function events.flush(q)
  local n = #q.events
  if n == 0 then
    return
  end
  local entry = cmsgpack.pack({q.now, q.events})
  local added, problem = pcall(function()
    redis.call('XADD', q.p .. 'ev', int(q.m.off - n + 1) .. '-0', 'e', entry)
  end)
  if not added then
    catch_up(q)
    error(problem, 0)
  end
  q.events = {}
end
