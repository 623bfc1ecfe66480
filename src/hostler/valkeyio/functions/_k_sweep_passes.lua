-- Upkeep of tenants' passes: none is remembered for ever.

local PASSES = 10000

-- Forget passes that the queue has caught up with. Tenants that come once never let it catch up, so it takes a
-- turn ahead when they are many; and a queue that has been empty for an hour owes nobody anything.
function sweep.passes(q)
  local many = redis.call('HLEN', q.p .. 'pass')
  if many == 0 then
    return
  end
  local live = q.m.n_ready + q.m.n_scheduled + q.m.n_running + q.m.n_waiting
  if live == 0 and q.m.off == q.m.mark_off and q.now - q.m.mark_at >= 3600000000 then
    redis.call('UNLINK', q.p .. 'pass')
    return
  end
  if many > PASSES then
    q.m.V = q.m.V + 10080
  end
  local got, gone = redis.call('HRANDFIELD', q.p .. 'pass', many > PASSES and 1000 or 100, 'WITHVALUES'), {}
  for i = 1, #got, 2 do
    if tonumber(got[i + 1]) <= q.m.V then
      gone[#gone + 1] = got[i]
    end
  end
  if #gone > 0 then
    redis.call('HDEL', q.p .. 'pass', unpack(gone))
  end
end
