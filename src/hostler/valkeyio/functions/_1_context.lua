-- One call's context: time, the queue's scalars, configuration. Read once, written once.
-- `q.p` is the prefix of the queue's keys, `q.now` microseconds, `q.m` the fields of meta.

local ctx = {}
local CONFIGS = {}
local TEXT = {cfg = true, run = true, reason = true}

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

local function now_of(q)
  if CLOCK == 'key' then
    return tonumber(redis.call('GET', q.p .. 'clock') or '0')
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Open a queue: time never steps back, whatever the machine's clock does.
function ctx.open(meta_key)
  local q = {p = string.sub(meta_key, 1, -5), key = meta_key, m = {}, was = {}, events = {}, records = {}, keys = {}}
  local got = redis.call('HMGET', meta_key, unpack(META))
  for i, name in ipairs(META) do
    local value = got[i]
    if not TEXT[name] then
      value = value and tonumber(value) or 0
    end
    q.was[name] = value
    q.m[name] = value
  end
  q.now = math.max(now_of(q), q.m.last)
  q.m.last = q.now
  if q.m.born == 0 then
    q.m.born, q.m.epoch, q.m.seq = q.now, 1, SEQ_BASE
  end
  q.id = q.p .. int(q.m.born)
  write.begin(q)
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

-- The earliest of the due times known and this one.
function ctx.due(q, at)
  if q.m.due == 0 or at < q.m.due then
    q.m.due = at
  end
end

-- Write what the call decided. Nothing was written before, and nothing here can be refused: values and
-- scalars first, then the events, then the indexes, which `audit` can rebuild from the records.
function ctx.commit(q)
  locks.admit(q)
  local line_plan = line.plan(q)
  rec.flush(q)
  write.values(q)
  ctx.scalars(q)
  events.flush(q)
  write.rest(q)
  line.flush(q, line_plan)
  wake.flush(q)
  write.begin(q)
end

-- Write the fields of meta that changed.
function ctx.scalars(q)
  local changed = {}
  for name, value in pairs(q.m) do
    if value ~= q.was[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = value
      q.was[name] = value
    end
  end
  if #changed > 0 then
    redis.call('HSET', q.key, unpack(changed))
  end
end
