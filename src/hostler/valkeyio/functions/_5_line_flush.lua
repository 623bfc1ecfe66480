-- The line's writes: leaves, heads of lanes, tenants, and the classes of workers that see them.

local function add_all(q, tenant, by_lane)
  local lowest = {}
  for lane, list in pairs(by_lane) do
    local words = {}
    for _, item in ipairs(list) do
      words[#words + 1] = item[1]
      words[#words + 1] = item[2]
      lowest[lane] = math.min(lowest[lane] or item[1], item[1])
    end
    redis.call('ZADD', q.p .. 'r:' .. lane .. ':' .. tenant, unpack(words))
  end
  return lowest
end

-- Remove members and return the new head of each lane, `false` where nothing is left.
local function remove_all(q, tenant, by_lane)
  local heads = {}
  for lane, members in pairs(by_lane) do
    local leaf = q.p .. 'r:' .. lane .. ':' .. tenant
    redis.call('ZREM', leaf, unpack(members))
    local known = q.heads[tenant] and q.heads[tenant][lane]
    if known and not (q.enters[tenant] and q.enters[tenant][lane]) then
      heads[lane] = known
    else
      local head = redis.call('ZRANGE', leaf, 0, 0, 'WITHSCORES')
      heads[lane] = head[2] and tonumber(head[2]) or false
    end
  end
  return heads
end

local function write_heads(q, tenant, heads)
  local add, gone = {}, {}
  for lane, vt in pairs(heads) do
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

local function one_tenant(q, plan, tenant)
  local heads = {}
  if q.enters[tenant] then
    for lane, vt in pairs(add_all(q, tenant, q.enters[tenant])) do
      local was = plan.heads[tenant][lane]
      if not was or vt < was then
        heads[lane] = vt
      end
    end
  end
  if q.leaves[tenant] then
    for lane, head in pairs(remove_all(q, tenant, q.leaves[tenant])) do
      heads[lane] = head
    end
  end
  return write_heads(q, tenant, heads)
end

function line.flush(q, plan)
  local active, idle, gone, tenants = {}, {}, {}, {}
  for tenant in pairs(q.enters) do
    tenants[tenant] = true
  end
  for tenant in pairs(q.leaves) do
    tenants[tenant] = true
  end
  for tenant in pairs(tenants) do
    if one_tenant(q, plan, tenant) then
      gone[#gone + 1] = tenant
    elseif q.passes[tenant] then
      active[#active + 1] = q.passes[tenant]
      active[#active + 1] = tenant
    end
  end
  if plan.idle and #plan.idle > 0 then
    redis.call('HDEL', q.p .. 'pass', unpack(plan.idle))
  end
  if #active > 0 then
    redis.call('ZADD', q.p .. 'TN', unpack(active))
  end
  if #gone > 0 then
    line.retire(q, gone, idle)
  end
  line.show(q, plan)
end
