-- The line: claimable jobs by lane and tenant, tenants by pass. Reads are in `plan`, writes in `flush`.

local function put(tree, tenant, lane, value)
  local lanes_of = tree[tenant] or {}
  tree[tenant] = lanes_of
  local list = lanes_of[lane] or {}
  lanes_of[lane] = list
  list[#list + 1] = value
end

-- How a job stands in its line: with a `k` where its record has to be read before it is placed.
function line.member(seq, record)
  return (record[F.ckey] or record[F.affinity] or record[F.crashes] > 0) and seq .. 'k' or seq
end

-- A ready job takes its place; one whose concurrency key is full is parked beside the line.
function line.enter(q, seq, record)
  local lane = record[F.lane]
  write.bump(q, 'lr', lane, 1)
  if record[F.ckey] and not locks.enter(q, seq, record) then
    return
  end
  line.place(q, seq, record)
end

-- Put a job whose key has room into its line.
function line.place(q, seq, record)
  local lane = record[F.lane]
  put(q.enters, record[F.tenant], lane, {record[F.vt], line.member(seq, record)})
  q.claimable[lane] = (q.claimable[lane] or 0) + 1
end

-- A job leaves its place, whether it is claimed, cancelled or expires.
function line.leave(q, seq, record)
  local lane = record[F.lane]
  write.bump(q, 'lr', lane, -1)
  if record[F.parked] == 1 then
    record[F.parked] = 0
    return locks.unpark(q, seq, record)
  end
  if record[F.ckey] then
    locks.leave(q, record)
  end
  line.remove(q, seq, record)
end

-- Take a job out of its line only.
function line.remove(q, seq, record)
  put(q.leaves, record[F.tenant], record[F.lane], line.member(seq, record))
end

-- Take out a member that stands for no ready job.
function line.drop(q, tenant, lane, member)
  put(q.leaves, tenant, lane, member)
end

-- A lane that a tenant is listed for is empty: look again when writing.
function line.mend(q, tenant, lane)
  put(q.leaves, tenant, lane, '-')
end

-- Read what `flush` has to know: which lanes and tenants are new to the line.
function line.plan(q)
  local plan, newcomers = {heads = {}, fresh = {}, passes = {}}, {}
  for tenant, by_lane in pairs(q.enters) do
    local names = {}
    for lane in pairs(by_lane) do
      names[#names + 1] = lane
    end
    local scores, heads, fresh = redis.call('ZMSCORE', q.p .. 'tl:' .. tenant, unpack(names)), {}, false
    for i, lane in ipairs(names) do
      heads[lane] = scores[i] and tonumber(scores[i]) or false
      if not scores[i] then
        plan.fresh[lane] = plan.fresh[lane] or {}
        table.insert(plan.fresh[lane], tenant)
        fresh = true
      end
    end
    plan.heads[tenant] = heads
    if fresh then
      newcomers[#newcomers + 1] = tenant
    end
  end
  if #newcomers > 0 then
    line.plan_passes(q, plan, newcomers)
  end
  return plan
end

-- A tenant that comes back keeps the pass it had, but never gets ahead of the one served last.
function line.plan_passes(q, plan, tenants)
  plan.idle = {}
  local scores, absent = redis.call('ZMSCORE', q.p .. 'TN', unpack(tenants)), {}
  for i, tenant in ipairs(tenants) do
    if scores[i] then
      plan.passes[tenant] = q.passes[tenant] or tonumber(scores[i])
    else
      absent[#absent + 1] = tenant
    end
  end
  if #absent > 0 then
    local kept = redis.call('HMGET', q.p .. 'pass', unpack(absent))
    for i, tenant in ipairs(absent) do
      plan.passes[tenant] = math.max(tonumber(kept[i] or '0'), q.m.V)
      q.passes[tenant] = plan.passes[tenant]
      plan.idle[#plan.idle + 1] = kept[i] and tenant or nil
    end
  end
end
