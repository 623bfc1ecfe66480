-- Concurrency keys: at most `key_running` jobs of one key run at the same time, over all lanes.
-- Per key and lane only as many jobs stand in the line as could run; the rest is parked, so a claim never
-- walks over blocked work, and a job that nobody can serve does not hold the key's place in other lanes.

-- The state of one key, read once a call: running, in line per lane, parked per lane.
function locks.state(q, key)
  local state = q.keys[key]
  if not state then
    state = {}
    local got = redis.call('HGETALL', q.p .. 'k:' .. key)
    for i = 1, #got, 2 do
      state[got[i]] = tonumber(got[i + 1])
    end
    q.keys[key] = state
  end
  return state
end

local function add(q, key, field, delta)
  local state = locks.state(q, key)
  state[field] = (state[field] or 0) + delta
  write.bump(q, 'k:' .. key, field, delta)
end

local function full(q, key, lane)
  local state = locks.state(q, key)
  return (state.r or 0) + (state['q' .. lane] or 0) >= ctx.config(q)[C.key_running]
end

local function park(q, seq, record)
  record[F.parked] = 1
  rec.touch(q, seq, record)
  add(q, record[F.ckey], 'p' .. record[F.lane], 1)
  write.zadd(q, 'kw:' .. record[F.lane] .. ':' .. record[F.ckey], record[F.vt], seq)
end

-- A keyed job wants into its line; false when it was parked instead.
function locks.enter(q, seq, record)
  if full(q, record[F.ckey], record[F.lane]) then
    park(q, seq, record)
    return false
  end
  add(q, record[F.ckey], 'q' .. record[F.lane], 1)
  return true
end

-- A keyed job leaves its line.
function locks.leave(q, record)
  add(q, record[F.ckey], 'q' .. record[F.lane], -1)
end

-- A job in the line whose key runs elsewhere by now is parked; nothing else about it changes.
function locks.park(q, seq, record)
  locks.leave(q, record)
  line.remove(q, seq, record)
  park(q, seq, record)
end

-- A parked job is taken away.
function locks.unpark(q, seq, record)
  add(q, record[F.ckey], 'p' .. record[F.lane], -1)
  write.zrem(q, 'kw:' .. record[F.lane] .. ':' .. record[F.ckey], seq)
end

-- A job that left its line runs, or no longer does.
function locks.run(q, record, delta)
  if record[F.ckey] then
    add(q, record[F.ckey], 'r', delta)
  end
end

function locks.busy(q, key)
  return (locks.state(q, key).r or 0) >= ctx.config(q)[C.key_running]
end

-- The best parked job of one key and lane, what this call itself parked and took away included.
local function best(q, key, lane)
  local name = 'kw:' .. lane .. ':' .. key
  local pending, found, vt = q.z[name] or {}, nil, nil
  for member, score in pairs(pending) do
    if score and (not vt or score < vt or (score == vt and member < found)) then
      found, vt = member, score
    end
  end
  local got = redis.call('ZRANGE', q.p .. name, 0, 128, 'WITHSCORES')
  for i = 1, #got, 2 do
    local score = tonumber(got[i + 1])
    if pending[got[i]] == nil and (not vt or score < vt or (score == vt and got[i] < found)) then
      return got[i]
    end
  end
  return found
end

-- Let parked jobs into their lines wherever a key has room again.
function locks.admit(q)
  for key, state in pairs(q.keys) do
    local parked = {}
    for field, count in pairs(state) do
      if count > 0 and string.sub(field, 1, 1) == 'p' then
        parked[#parked + 1] = tonumber(string.sub(field, 2))
      end
    end
    for _, lane in ipairs(parked) do
      while (state['p' .. lane] or 0) > 0 and not full(q, key, lane) do
        local seq = best(q, key, lane)
        local record = seq and rec.one(q, seq)
        if not record then
          break
        end
        locks.unpark(q, seq, record)
        record[F.parked] = 0
        rec.touch(q, seq, record)
        add(q, key, 'q' .. lane, 1)
        line.place(q, seq, record)
      end
    end
  end
end
