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

-- Numbers for lanes given as key, packed row, key, ...; new ones begin, as far as `limits.lanes` allows.
-- A lane without a number is over the limit.
function lanes.resolve(q, given)
  local keys, numbers, count = {}, {}, false
  for i = 1, #given, 2 do
    keys[#keys + 1] = given[i]
  end
  if #keys == 0 then
    return numbers
  end
  local got = redis.call('HMGET', q.p .. 'lanekeys', unpack(keys))
  for i, key in ipairs(keys) do
    if got[i] then
      numbers[i] = tonumber(got[i])
    else
      count = count or redis.call('HLEN', q.p .. 'lanes')
      if count < ctx.config(q)[C.lanes] then
        count = count + 1
        q.m.lane = q.m.lane + 1
        local row = cmsgpack.unpack(given[2 * i])
        row[L.created], row[L.key] = q.now, key
        write.hset(q, 'lanekeys', key, q.m.lane)
        write.hset(q, 'lanes', q.m.lane, cmsgpack.pack(row))
        numbers[i] = q.m.lane
      end
    end
  end
  return numbers
end

-- What a class covers, and up to which lane it was judged.
function class.open(q, name)
  local cache = CLASSES[q.id] or {}
  CLASSES[q.id] = cache
  local known = tonumber(redis.call('HGET', q.p .. 'classes', name) or '0')
  local found = cache[name]
  if not found or found.known ~= known then
    found = {name = name, known = known, offers = {}}
    local got = redis.call('HGETALL', q.p .. 'cl:' .. name)
    for i = 1, #got, 2 do
      found.offers[tonumber(got[i])] = class.indexes(got[i + 1])
    end
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
