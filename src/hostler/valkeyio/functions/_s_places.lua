-- The registry of endpoints: what was announced, leases by end, what operators said. Each change raises `epv`.
-- A row is {since, seen, sealed announcement}; a mark is {why it is paused or false, resets}.

local places = {}

function places.row(q, endpoint)
  local packed = redis.call('HGET', q.p .. 'endpoints', endpoint)
  return packed and cmsgpack.unpack(packed)
end

function places.alive(q, endpoint)
  local ends = redis.call('ZSCORE', q.p .. 'epends', endpoint)
  return ends and tonumber(ends) > q.now
end

function places.mark(q, endpoint)
  local packed = redis.call('HGET', q.p .. 'epmarks', endpoint)
  return packed and cmsgpack.unpack(packed) or {false, 0}
end

-- Say a change and raise the version, so that whoever follows looks again.
function places.turn(q, endpoint, to, reason)
  events.say(q, 'endpoint', false, nil, false, {endpoint = endpoint, to = to, reason = reason ~= '' and reason or nil})
  redis.call('INCR', q.p .. 'epv')
end

function places.remove(q, endpoint, reason)
  places.turn(q, endpoint, 'gone', reason)
  redis.call('HDEL', q.p .. 'endpoints', endpoint)
  write.zrem(q, 'epends', endpoint)
end

-- Remove those whose lease ran out, at most `most`; returns how many.
function places.lapse(q, most)
  local ids = redis.call('ZRANGE', q.p .. 'epends', '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
  for _, endpoint in ipairs(ids) do
    places.remove(q, endpoint, 'its lease ran out')
  end
  return #ids
end
