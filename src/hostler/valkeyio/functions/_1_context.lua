-- One call's context: time, the queue's scalars, configuration. Read once, written once.
-- `q.p` is the prefix of the queue's keys, `q.now` microseconds, `q.m` the fields of meta.

local CONFIGS = {}
local SILENCE = 5000000
local TEXT = {cfg = true, run = true, reason = true}

local function tail(argv, first)
  local rest = {}
  for i = first, #argv do
    rest[#rest + 1] = argv[i]
  end
  return rest
end

local function now_of(p)
  if CLOCK == 'key' then
    return tonumber(redis.call('GET', p .. 'clock') or '0')
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The fields of meta, made numbers only when they are looked at; the rarer ones are read only then.
local function scalars_of(q)
  local hot, cold = redis.call('HMGET', q.key, unpack(META, 1, META_HOT)), nil
  return setmetatable({}, {__index = function(fields, name)
    local at = META_AT[name]
    if at > META_HOT and not cold then
      cold = redis.call('HMGET', q.key, unpack(META, META_HOT + 1))
    end
    local value = at > META_HOT and cold[at - META_HOT] or hot[at]
    if not TEXT[name] then
      value = value and tonumber(value) or 0
    end
    q.was[name] = value
    rawset(fields, name, value)
    return value
  end})
end

-- The prefix of a queue's keys.
function ctx.prefix(meta_key)
  return string.sub(meta_key, 1, -5)
end

-- The time and some fields of meta, for who mostly finds that there is nothing to do: opening costs several times as much.
function ctx.glance(meta_key, ...)
  local got = redis.call('HMGET', meta_key, 'last', ...)
  for i, value in ipairs(got) do
    got[i] = value and tonumber(value) or 0
  end
  return math.max(now_of(ctx.prefix(meta_key)), got[1]), unpack(got, 2)
end

-- Open a queue: time never steps back, whatever the machine's clock does.
function ctx.open(meta_key)
  local q = {p = ctx.prefix(meta_key), key = meta_key, was = {}, events = {}, records = {}, keys = {}}
  q.m = scalars_of(q)
  local now = now_of(q.p)
  q.now = math.max(now, q.m.last)
  local silent = q.m.last > 0 and q.now - q.m.last > SILENCE
  q.m.last = q.now
  write.begin(q)
  if ctx.writes then
    home.open(q, now)
    -- Nobody was heard, so whoever holds a lease may have tried in vain; what one alone failed to do is a loss.
    if silent and q.m.n_running > 0 then
      q.m.heir = q.now
    end
  end
  -- The life too: a slot of a cluster may move away from a server and come back.
  q.id = q.p .. int(q.m.born) .. int(q.m.life) .. (q.m.run or '')
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

-- A job expires at this time, unless it ends before; a claim looks for expired jobs no earlier than that.
function ctx.expires(q, at, seq)
  write.zadd(q, 'expiry', at, seq)
  if q.m.exp == 0 or at < q.m.exp then
    q.m.exp = at
  end
end
