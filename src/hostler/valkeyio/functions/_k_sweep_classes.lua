-- Upkeep of workers and their classes: who is gone, and what only they covered. In slices.

local DROPPED = 500

-- Live workers per class, for this call.
local function sizes_of(q)
  local sizes = {}
  for _, name in pairs(class.workers(q)) do
    sizes[name] = (sizes[name] or 0) + 1
  end
  return sizes
end

-- Forget workers whose presence ran out, and classes that no live worker is of. Returns how far the live classes are
-- judged, and true when lanes of a class that is going are left.
function sweep.workers(q)
  q.sizes = sizes_of(q)
  if #q.dead > 0 then
    redis.call('HDEL', q.p .. 'w', unpack(q.dead))
  end
  local idle, left, known, got = 0, DROPPED, {}, redis.call('HGETALL', q.p .. 'classes')
  for i = 1, #got, 2 do
    local name = got[i]
    if not q.sizes[name] then
      left = left > 0 and left - sweep.drop_class(q, name, left) or 0
    else
      known[name] = tonumber(got[i + 1])
      if #q.dead > 0 then
        redis.call('SREM', q.p .. 'idle:' .. name, unpack(q.dead))
      end
      idle = idle + redis.call('SCARD', q.p .. 'idle:' .. name)
    end
  end
  q.m.idle = idle
  return known, left <= 0
end

-- Drop a class, at most so many of its lanes now; returns how many. Meanwhile it counts as judged for no lane, so that
-- a worker of it that comes back is judged for all of them again.
function sweep.drop_class(q, name, most)
  redis.call('HSET', q.p .. 'classes', name, 0)
  local covered = redis.call('HSCAN', q.p .. 'cl:' .. name, '0', 'COUNT', most)[2]
  local gone = {}
  for i = 1, #covered, 2 do
    redis.call('SREM', q.p .. 'cls:' .. covered[i], name)
    gone[#gone + 1] = covered[i]
  end
  for first = 1, #gone, 1000 do
    redis.call('HDEL', q.p .. 'cl:' .. name, unpack(gone, first, math.min(first + 999, #gone)))
  end
  if redis.call('EXISTS', q.p .. 'cl:' .. name) == 0 then
    redis.call('HDEL', q.p .. 'classes', name)
    redis.call('UNLINK', q.p .. 'TN:' .. name, q.p .. 'idle:' .. name)
  end
  return #gone
end
