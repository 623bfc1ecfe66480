-- Wake-ups: as many idle workers as jobs became claimable for them hear of it; nobody else does.

local function publish(q, worker)
  redis.call('PUBLISH', q.p .. 'w:' .. worker, '1')
end

-- Classes that cover a lane, and those that were not judged for it yet.
local function classes_for(q, lane)
  local names, listed = redis.call('SMEMBERS', q.p .. 'cls:' .. lane), {}
  for _, name in ipairs(names) do
    listed[name] = true
  end
  q.known = q.known or redis.call('HGETALL', q.p .. 'classes')
  for i = 1, #q.known, 2 do
    if tonumber(q.known[i + 1]) < lane and not listed[q.known[i]] then
      names[#names + 1] = q.known[i]
    end
  end
  return names
end

-- Pop up to `n` idle workers of a class that `avoid` does not name; return how many were woken.
local function pop(q, name, n, avoid)
  local woken, back = 0, {}
  local popped = redis.call('SPOP', q.p .. 'idle:' .. name, n + #avoid)
  for _, worker in ipairs(popped) do
    if woken < n and not class.among(avoid, worker) then
      publish(q, worker)
      woken = woken + 1
    else
      back[#back + 1] = worker
    end
  end
  if #back > 0 then
    redis.call('SADD', q.p .. 'idle:' .. name, unpack(back))
  end
  return woken
end

local function wake_lane(q, lane, n)
  local row = lanes.row(q, lane)
  local avoid, woken = row and row[L.avoid] or {}, 0
  for _, name in ipairs(classes_for(q, lane)) do
    if woken < n then
      woken = woken + pop(q, name, n - woken, avoid)
    end
  end
  return woken
end

-- Any idle worker may be able to use what was given back.
function wake.anyone(q, n)
  local woken = 0
  for _, name in ipairs(redis.call('HKEYS', q.p .. 'classes')) do
    if woken < n then
      woken = woken + pop(q, name, n - woken, {})
    end
  end
  return woken
end

function wake.flush(q)
  if q.m.idle <= 0 then
    return
  end
  local woken = 0
  for lane, n in pairs(q.claimable) do
    woken = woken + wake_lane(q, lane, n)
  end
  if (q.freed or 0) > 0 and q.m.n_ready > 0 then
    woken = woken + wake.anyone(q, q.freed)
  end
  q.freed = 0
  wake.count(q, -woken)
end

-- Keep the number of idle workers; it only decides whether to look, so `tick` may set it right.
function wake.count(q, delta)
  if delta ~= 0 then
    q.m.idle = redis.call('HINCRBY', q.key, 'idle', delta)
    q.was.idle = q.m.idle
  end
end

-- A worker found nothing; it wants to hear when that changes.
function wake.idle(q, worker, name)
  wake.count(q, redis.call('SADD', q.p .. 'idle:' .. name, worker))
end

-- A worker found work: it is not idle.
function wake.busy(q, worker, name)
  if q.m.idle > 0 then
    wake.count(q, -redis.call('SREM', q.p .. 'idle:' .. name, worker))
  end
end
