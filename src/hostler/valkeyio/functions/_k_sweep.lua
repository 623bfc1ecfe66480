-- Upkeep of lanes: which nobody serves, which are empty. In slices.

local sweep = {}
local JUDGE_WITHIN = 5000000
local EMPTY_FOR = 60000000

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

-- How many live workers of a class must not run this lane.
local function barred_of(q, row, name)
  local n = 0
  for _, worker in ipairs(row[L.avoid]) do
    n = n + (q.workers[worker] == name and 1 or 0)
  end
  return n
end

-- Which of these lanes a live worker may run: class by class, so that one that covers all is asked once.
local function served_of(q, left, rows)
  local served = {}
  for name, size in pairs(q.sizes) do
    if #left == 0 then
      break
    end
    local rest, offers = {}, redis.call('HMGET', q.p .. 'cl:' .. name, unpack(left))
    for i, lane in ipairs(left) do
      if offers[i] and size > barred_of(q, rows[lane], name) then
        served[lane] = true
      else
        rest[#rest + 1] = lane
      end
    end
    left = rest
  end
  return served
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

local function look_at(q, known, some)
  local live = redis.call('HMGET', q.p .. 'lc', unpack(some))
  local ready = redis.call('HMGET', q.p .. 'lr', unpack(some))
  local marks = redis.call('HMGET', q.p .. 'un', unpack(some))
  local rows, wait = lanes.rows(q, some), {}
  for i, lane in ipairs(some) do
    wait[#wait + 1] = ready[i] and lane or nil
  end
  local served = served_of(q, wait, rows)
  for i, lane in ipairs(some) do
    local row = rows[lane]
    if not live[i] and q.now - row[L.created] > EMPTY_FOR then
      retire_lane(q, lane, row)
    elseif ready[i] and (served[lane] or judged(q, known, lane, row)) then
      mark(q, lane, row, served[lane], marks[i])
    end
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
    look_at(q, known, {unpack(numbers, first, math.min(first + 999, #numbers))})
  end
  return q.m.cursor ~= 0
end
