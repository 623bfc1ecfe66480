-- Who else may run a lane.

-- Whether a live worker may run this lane; `except` are workers that do not count.
function class.served(q, lane, row, except)
  local covers = {}
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    covers[name] = true
  end
  for worker, name in pairs(class.workers(q)) do
    if covers[name] and not class.among(row[L.avoid], worker) and not (except and class.among(except, worker)) then
      return true
    end
  end
  return false
end

-- Whether another live worker than these may run the lane, or has not looked at one that is new: an idle worker does
-- with its next claim, and until then a worker that the lane shuns does not take it.
function class.may_serve(q, lane, row, except)
  if class.served(q, lane, row, except) then
    return true
  elseif row[L.created] < q.now - 5000000 then
    return false
  end
  local known = {}
  for worker, name in pairs(class.workers(q)) do
    if not class.among(row[L.avoid], worker) and not class.among(except, worker) then
      known[name] = known[name] or tonumber(redis.call('HGET', q.p .. 'classes', name) or '0')
      if known[name] < tonumber(lane) then
        return true
      end
    end
  end
  return false
end
