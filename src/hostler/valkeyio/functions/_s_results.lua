-- The cache of results: `rc:<key>` a sealed result, `rf:<key>` a flight {job, fence}, `rends` keys by end, `rsize`
-- bytes by key and in all, `rstat` counts by kind.

local results = {}

function results.count(q, kind, what)
  write.bump(q, 'rstat', kind .. '|' .. what, 1)
end

-- Whether this job may have the flight: nobody holds it, or it itself does, with no later attempt.
function results.mine(q, key, job, fence)
  local packed = redis.call('GET', q.p .. 'rf:' .. key)
  local held = packed and cmsgpack.unpack(packed)
  return not held or (held[1] == job and held[2] <= fence), held
end

function results.take(q, key, job, fence, ms)
  write.timed(q, 'rf:' .. key, cmsgpack.pack({job, fence}), ms)
end

-- Change what a key's result counts in bytes.
function results.weigh(q, key, size)
  local delta = size - tonumber(redis.call('HGET', q.p .. 'rsize', key) or '0')
  write.bump(q, 'rsize', key, delta)
  write.bump(q, 'rsize', 'all', delta)
  return delta
end

function results.forget(q, key)
  write.drop(q, 'rc:' .. key)
  write.zrem(q, 'rends', key)
  return results.weigh(q, key, 0)
end

-- Make room, for one result more: what has ended goes, then what ends soonest, a slice at a time.
function results.trim(q, key, most, most_bytes)
  local entries = redis.call('ZCARD', q.p .. 'rends')
  local bytes = tonumber(redis.call('HGET', q.p .. 'rsize', 'all') or '0')
  local soonest = redis.call('ZRANGE', q.p .. 'rends', 0, 63, 'WITHSCORES')
  for i = 1, #soonest, 2 do
    if tonumber(soonest[i + 1]) > q.now and entries < most and bytes <= most_bytes then
      return
    end
    if soonest[i] ~= key then
      entries, bytes = entries - 1, bytes + results.forget(q, soonest[i])
    end
  end
end
