-- Lanes and worker classes: which lanes a class of workers covers, and through which of its offers.
-- A lane's number is never given twice and its row never changes, so rows may be cached for ever.

local ROWS = {}
local CLASSES = {}
local CACHED = 0

local function bound_caches()
  CACHED = CACHED + 1
  if CACHED > 20000 then
    ROWS, CLASSES, CACHED = {}, {}, 0
  end
end

-- Rows by lane number; a lane that was retired is absent.
function lanes.rows(q, numbers)
  local cache, missing, found = ROWS[q.id] or {}, {}, {}
  ROWS[q.id] = cache
  for _, lane in ipairs(numbers) do
    found[lane] = cache[lane]
    if not cache[lane] then
      missing[#missing + 1] = lane
    end
  end
  if #missing > 0 then
    local got = redis.call('HMGET', q.p .. 'lanes', unpack(missing))
    for i, lane in ipairs(missing) do
      if got[i] then
        bound_caches()
        cache[lane] = cmsgpack.unpack(got[i])
        found[lane] = cache[lane]
      end
    end
  end
  return found
end

-- The row of one lane, nil when it was retired.
function lanes.row(q, lane)
  local cache = ROWS[q.id]
  return cache and cache[lane] or lanes.rows(q, {lane})[lane]
end

-- Look up lanes given as key, packed row, key, packed row, ...
function lanes.look_up(q, given)
  local keys = {}
  for i = 1, #given, 2 do
    keys[#keys + 1] = given[i]
  end
  local got = #keys > 0 and redis.call('HMGET', q.p .. 'lanekeys', unpack(keys)) or {}
  local numbers = {}
  for i in ipairs(keys) do
    numbers[i] = got[i] and tonumber(got[i]) or nil
  end
  return {given = given, numbers = numbers}
end

-- The number of the i-th of these lanes; a new lane begins here. Nil when the queue has all it may have.
function lanes.number(q, found, i)
  if found.numbers[i] then
    return found.numbers[i]
  end
  q.lane_count = q.lane_count or redis.call('HLEN', q.p .. 'lc')
  if q.lane_count >= ctx.config(q)[C.lanes] then
    return nil
  end
  q.lane_count = q.lane_count + 1
  q.m.lane = q.m.lane + 1
  local row = cmsgpack.unpack(found.given[2 * i])
  row[L.created], row[L.key] = q.now, found.given[2 * i - 1]
  write.late(q, 'lanekeys', row[L.key], q.m.lane)
  write.hset(q, 'lanes', q.m.lane, cmsgpack.pack(row))
  found.numbers[i] = q.m.lane
  return q.m.lane
end

-- What a class covers, and up to which lane it was judged.
function class.open(q, name)
  local cache = CLASSES[q.id] or {}
  CLASSES[q.id] = cache
  local known = tonumber(redis.call('HGET', q.p .. 'classes', name) or '0')
  local found = cache[name]
  if not found or found.known ~= known then
    found = {name = name, known = known, offers = {}, lanes = 0}
    local got = redis.call('HGETALL', q.p .. 'cl:' .. name)
    for i = 1, #got, 2 do
      found.offers[tonumber(got[i])] = class.indexes(got[i + 1])
    end
    found.lanes = #got / 2
    bound_caches()
    cache[name] = found
  end
  return found
end

function class.indexes(text)
  local list = {}
  for word in string.gmatch(text, '%d+') do
    list[#list + 1] = tonumber(word)
  end
  return list
end

-- Packed rows of the next lanes that this class was not judged for: number, row, number, row, ...
function class.unjudged(q, found, most)
  local numbers, words = {}, {}
  local last = math.min(q.m.lane, found.known + most)
  for lane = found.known + 1, last do
    numbers[#numbers + 1] = lane
  end
  local got = redis.call('HMGET', q.p .. 'lanes', unpack(numbers))
  for i, lane in ipairs(numbers) do
    if got[i] then
      words[#words + 1] = lane
      words[#words + 1] = cmsgpack.unpack(got[i])[L.lane]
    end
  end
  return {last, words}
end
