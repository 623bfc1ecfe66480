-- Upkeep of lanes and worker classes: who is gone, which lanes nobody serves, which are empty. In slices.

local sweep = {}
local JUDGE_WITHIN = 4000000
local EMPTY_FOR = 60000000

-- Forget workers whose presence ran out, and classes that no live worker is of.
function sweep.workers(q)
  local live = {}
  for _, name in pairs(class.workers(q)) do
    live[name] = true
  end
  if #q.dead > 0 then
    redis.call('HDEL', q.p .. 'w', unpack(q.dead))
  end
  local idle, known, got = 0, {}, redis.call('HGETALL', q.p .. 'classes')
  for i = 1, #got, 2 do
    local name = got[i]
    if not live[name] then
      sweep.drop_class(q, name)
    else
      known[name] = tonumber(got[i + 1])
      if #q.dead > 0 then
        redis.call('SREM', q.p .. 'idle:' .. name, unpack(q.dead))
      end
      idle = idle + redis.call('SCARD', q.p .. 'idle:' .. name)
    end
  end
  q.m.idle = idle
  return known
end

function sweep.drop_class(q, name)
  for _, lane in ipairs(redis.call('HKEYS', q.p .. 'cl:' .. name)) do
    redis.call('SREM', q.p .. 'cls:' .. lane, name)
  end
  redis.call('HDEL', q.p .. 'classes', name)
  redis.call('UNLINK', q.p .. 'cl:' .. name, q.p .. 'TN:' .. name, q.p .. 'idle:' .. name)
end

-- Whether every live class was judged for this lane, or had its time.
local function judged(q, known, lane, row)
  if q.now - row[L.created] > JUDGE_WITHIN then
    return true
  end
  for _, upto in pairs(known) do
    if upto < lane then
      return false
    end
  end
  return true
end

-- From the top down: nobody may find a lane whose row is gone, and after an error midway the next sweep goes on.
local function retire_lane(q, lane, row)
  if redis.call('HGET', q.p .. 'lanekeys', row[L.key]) == int(lane) then
    redis.call('HDEL', q.p .. 'lanekeys', row[L.key])
  end
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    redis.call('HDEL', q.p .. 'cl:' .. name, lane)
  end
  redis.call('HDEL', q.p .. 'un', lane)
  redis.call('UNLINK', q.p .. 'cls:' .. lane, q.p .. 'lt:' .. lane)
  redis.call('HDEL', q.p .. 'lanes', lane)
end

local function mark(q, lane, row, served, marked)
  if served and marked then
    redis.call('HDEL', q.p .. 'un', lane)
    events.say(q, 'workable', false, nil, false, {lane = row[L.key]})
  elseif not served and not marked then
    redis.call('HSET', q.p .. 'un', lane, q.now)
    events.say(q, 'unworkable', false, nil, false, {lane = row[L.key]})
  end
end

-- Look at some lanes: mark those with waiting jobs that nobody serves, take marks back, retire empty ones.
function sweep.lanes(q, known, most)
  local got = redis.call('HSCAN', q.p .. 'lanes', int(q.m.cursor), 'COUNT', most)
  q.m.cursor = tonumber(got[1])
  local numbers = {}
  for i = 1, #got[2], 2 do
    numbers[#numbers + 1] = tonumber(got[2][i])
  end
  for first = 1, #numbers, 1000 do
    local some = {unpack(numbers, first, math.min(first + 999, #numbers))}
    local live = redis.call('HMGET', q.p .. 'lc', unpack(some))
    local ready = redis.call('HMGET', q.p .. 'lr', unpack(some))
    local marks = redis.call('HMGET', q.p .. 'un', unpack(some))
    local rows = lanes.rows(q, some)
    for i, lane in ipairs(some) do
      local row = rows[lane]
      if not live[i] and q.now - row[L.created] > EMPTY_FOR then
        retire_lane(q, lane, row)
      elseif ready[i] then
        local served = class.served(q, lane, row)
        if served or judged(q, known, lane, row) then
          mark(q, lane, row, served, marks[i])
        end
      end
    end
  end
  return q.m.cursor ~= 0
end
