-- A worker class learns which of the new lanes it covers.

-- Tenants with work in a lane become visible to the class; bounds only need to be low enough.
local function show_tenants(q, name, lane)
  local tenants = redis.call('SMEMBERS', q.p .. 'lt:' .. lane)
  for first = 1, #tenants, 1000 do
    local some = {unpack(tenants, first, math.min(first + 999, #tenants))}
    local scores, words = redis.call('ZMSCORE', q.p .. 'TN', unpack(some)), {}
    for i, tenant in ipairs(some) do
      if scores[i] then
        words[#words + 1] = scores[i]
        words[#words + 1] = tenant
      end
    end
    if #words > 0 then
      redis.call('ZADD', q.p .. 'TN:' .. name, 'NX', unpack(words))
    end
  end
end

-- Lanes that were marked unworkable are workable again, unless no worker of the class may run them.
local function clear_marks(q, covered)
  local marks, cleared = redis.call('HMGET', q.p .. 'un', unpack(covered)), {}
  for i, lane in ipairs(covered) do
    if marks[i] then
      cleared[#cleared + 1] = lane
    end
  end
  return cleared
end

-- `pairs` is lane, offer indexes as text, ...: the lanes up to `upto` that the class covers. Idempotent.
function class.cover(q, name, given, upto)
  local found = class.open(q, name)
  if upto <= found.known then
    return found
  end
  local covered = {}
  for i = 1, #given, 2 do
    covered[#covered + 1] = given[i]
  end
  if #covered > 0 then
    redis.call('HSET', q.p .. 'cl:' .. name, unpack(given))
    for i, lane in ipairs(covered) do
      redis.call('SADD', q.p .. 'cls:' .. lane, name)
      show_tenants(q, name, lane)
      found.lanes, found.offers[lane] = found.lanes + (found.offers[lane] and 0 or 1), class.indexes(given[2 * i])
    end
  end
  redis.call('HSET', q.p .. 'classes', name, upto)
  found.known = upto
  if #covered > 0 then
    class.workable(q, clear_marks(q, covered))
  end
  return found
end

-- Take back the mark of lanes that a live worker serves.
function class.workable(q, list)
  local rows = lanes.rows(q, list)
  for _, lane in ipairs(list) do
    local row = rows[lane]
    if row and class.served(q, lane, row) then
      events.say(q, 'workable', false, nil, false, {lane = row[L.key]})
      redis.call('HDEL', q.p .. 'un', lane)
    end
  end
end

-- Live workers by id, with their class, read once a call; `q.dead` collects those whose presence ran out.
function class.workers(q)
  if not q.workers then
    q.workers, q.dead = {}, {}
    local got = redis.call('HGETALL', q.p .. 'w')
    for i = 1, #got, 2 do
      local row = cmsgpack.unpack(got[i + 1])
      if row[1] > q.now then
        q.workers[got[i]] = row[2]
      else
        q.dead[#q.dead + 1] = got[i]
      end
    end
  end
  return q.workers
end

local function among(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then
      return true
    end
  end
  return false
end

class.among = among

-- A worker was seen: it counts as live for twelve seconds, written when it would not for the next eight. So an idle
-- one, which claims every four, is written with every second claim.
function class.present(q, worker, name)
  local packed = redis.call('HGET', q.p .. 'w', worker)
  local row = packed and cmsgpack.unpack(packed)
  if not row or row[2] ~= name or row[1] < q.now + 8000000 then
    redis.call('HSET', q.p .. 'w', worker, cmsgpack.pack({q.now + 12000000, name}))
    redis.call('HSETNX', q.p .. 'classes', name, 0)
  end
end
