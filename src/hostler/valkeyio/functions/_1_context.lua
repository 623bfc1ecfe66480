-- One call's context: time, the queue's scalars, configuration, events. Read once, written once.
-- `q.p` is the prefix of the queue's keys, `q.now` microseconds, `q.m` the fields of meta.

local ctx = {}
local CONFIGS = {}

local function tail(argv, first)
  local rest = {}
  for i = first, #argv do
    rest[#rest + 1] = argv[i]
  end
  return rest
end

-- Text of an integer; never write `..` on one that may have more than 14 digits.
local function int(n)
  return string.format('%.0f', n)
end

local TEXT = {cfg = true, run = true, reason = true}

-- Open a queue: time never steps back, whatever the machine's clock does.
function ctx.open(meta_key)
  local q = {p = string.sub(meta_key, 1, -5), key = meta_key, m = {}, events = {}, wakes = {}, woken = 0}
  local got = redis.call('HMGET', meta_key, unpack(META))
  local was = {}
  for i, name in ipairs(META) do
    local value = got[i]
    if not TEXT[name] then
      value = value and tonumber(value) or 0
    end
    was[name] = value
    q.m[name] = value
  end
  q.was = was
  if CLOCK == 'key' then
    q.now = tonumber(redis.call('GET', q.p .. 'clock') or '0')
  else
    local time = redis.call('TIME')
    q.now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  q.now = math.max(q.now, q.m.last)
  q.m.last = q.now
  if q.m.born == 0 then
    q.m.born, q.m.epoch, q.m.seq = q.now, 1, SEQ_BASE
  end
  q.id = q.p .. int(q.m.born)
  return q
end

-- Configuration, cached by the hash of its content (so that a restored or failed-over engine is never wrong).
function ctx.config(q)
  local hash = q.m.cfg
  if not hash then
    return CONFIG
  end
  local found = CONFIGS[hash]
  if not found then
    found = cmsgpack.unpack(redis.call('GET', q.p .. 'cfg'))
    CONFIGS[hash] = found
  end
  return found
end

-- Write what changed in meta; the last thing that a call does.
function ctx.close(q)
  ctx.flush(q)
  local changed = {}
  for name, value in pairs(q.m) do
    if value ~= q.was[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = value
    end
  end
  if #changed > 0 then
    redis.call('HSET', q.key, unpack(changed))
  end
end

-- Add to fields of a hash, one read and one write for all; a field that reaches 0 goes.
function ctx.bump(q, key, deltas)
  local fields = {}
  for field, delta in pairs(deltas) do
    if delta ~= 0 then
      fields[#fields + 1] = field
    end
  end
  if #fields == 0 then
    return
  end
  local got, set, drop = redis.call('HMGET', q.p .. key, unpack(fields)), {}, {}
  for i, field in ipairs(fields) do
    local value = (tonumber(got[i] or '0')) + deltas[field]
    if value > 0 then
      set[#set + 1] = field
      set[#set + 1] = value
    elseif got[i] then
      drop[#drop + 1] = field
    end
  end
  if #set > 0 then
    redis.call('HSET', q.p .. key, unpack(set))
  end
  if #drop > 0 then
    redis.call('HDEL', q.p .. key, unpack(drop))
  end
end
