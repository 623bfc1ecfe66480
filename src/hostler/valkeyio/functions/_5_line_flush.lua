-- The line's writes: leaves, heads of lanes, tenants, and the classes of workers that see them.

-- Jobs enter from the top down, so that an error midway leaves at worst an entry that points at nothing, which the
-- next claim mends: first the tenant can be found, then its lanes, then the jobs. Jobs leave from the bottom up.

local function enter(q, plan, tenant, by_lane)
  local heads, leaves = {}, {}
  for lane, list in pairs(by_lane) do
    local words, lowest = {}, nil
    for _, item in ipairs(list) do
      words[#words + 1] = item[1]
      words[#words + 1] = item[2]
      lowest = math.min(lowest or item[1], item[1])
    end
    leaves[lane] = words
    local was = plan.heads[tenant][lane]
    if not was or lowest < was then
      heads[#heads + 1] = lowest
      heads[#heads + 1] = lane
    end
  end
  if #heads > 0 then
    redis.call('ZADD', q.p .. 'tl:' .. tenant, unpack(heads))
  end
  for lane, words in pairs(leaves) do
    redis.call('ZADD', q.p .. 'r:' .. lane .. ':' .. tenant, unpack(words))
  end
end

-- Jobs leave: their lanes get new heads, and a lane without any is no longer the tenant's. True when none is left.
local function leave(q, tenant, by_lane)
  local known, entered, add, gone = q.heads[tenant], q.enters[tenant], {}, {}
  for lane, members in pairs(by_lane) do
    local leaf = q.p .. 'r:' .. lane .. ':' .. tenant
    redis.call('ZREM', leaf, unpack(members))
    local vt = known and known[lane]
    if not vt or (entered and entered[lane]) then
      vt = redis.call('ZRANGE', leaf, 0, 0, 'WITHSCORES')[2]
    end
    if vt then
      add[#add + 1] = vt
      add[#add + 1] = lane
    else
      gone[#gone + 1] = lane
      redis.call('SREM', q.p .. 'lt:' .. lane, tenant)
    end
  end
  if #add > 0 then
    redis.call('ZADD', q.p .. 'tl:' .. tenant, unpack(add))
  end
  if #gone == 0 then
    return false
  end
  redis.call('ZREM', q.p .. 'tl:' .. tenant, unpack(gone))
  return #add == 0 and redis.call('EXISTS', q.p .. 'tl:' .. tenant) == 0
end

function line.flush(q, plan)
  local active, gone = {}, {}
  for tenant, pass in pairs(q.passes) do
    active[#active + 1] = pass
    active[#active + 1] = tenant
  end
  if #active > 0 then
    redis.call('ZADD', q.p .. 'TN', unpack(active))
  end
  if plan.idle and #plan.idle > 0 then
    redis.call('HDEL', q.p .. 'pass', unpack(plan.idle))
  end
  line.show(q, plan)
  for tenant, by_lane in pairs(q.enters) do
    enter(q, plan, tenant, by_lane)
  end
  for tenant, by_lane in pairs(q.leaves) do
    if leave(q, tenant, by_lane) then
      gone[#gone + 1] = tenant
    end
  end
  if #gone > 0 then
    line.retire(q, gone, {})
  end
end
