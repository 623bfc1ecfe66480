-- The line's tenants: who becomes visible to which workers, who leaves.

-- New lanes of a tenant become visible to every class that covers them; bounds only need to be low enough.
function line.show(q, plan)
  for lane, tenants in pairs(plan.fresh) do
    redis.call('SADD', q.p .. 'lt:' .. lane, unpack(tenants))
    local words = {}
    for _, tenant in ipairs(tenants) do
      words[#words + 1] = plan.passes[tenant]
      words[#words + 1] = tenant
    end
    for _, class in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
      redis.call('ZADD', q.p .. 'TN:' .. class, 'NX', unpack(words))
    end
  end
end

-- Tenants without claimable jobs keep their pass aside while it is ahead of the queue's.
function line.retire(q, gone, idle)
  local scores = redis.call('ZMSCORE', q.p .. 'TN', unpack(gone))
  for i, tenant in ipairs(gone) do
    local pass = q.passes[tenant] or tonumber(scores[i] or '0')
    if pass > q.m.V then
      idle[#idle + 1] = tenant
      idle[#idle + 1] = pass
    end
  end
  redis.call('ZREM', q.p .. 'TN', unpack(gone))
  if #idle > 0 then
    redis.call('HSET', q.p .. 'pass', unpack(idle))
  end
end
