-- The end of a call: everything that it decided is written, in an order that an error cannot make worse.

-- Write what the call decided. Nothing was written before, and nothing here can be refused: values first, then
-- the events, then the scalars, then the indexes, which `audit` can rebuild from the records. So no offset is
-- ever without its event; should the scalars fail, at least the offset is kept, lest it be given twice.
function ctx.commit(q)
  locks.admit(q)
  local line_plan = line.plan(q)
  rec.flush(q)
  write.values(q)
  events.flush(q)
  local kept, problem = pcall(ctx.scalars, q)
  if not kept then
    redis.call('HSET', q.key, 'off', int(q.m.off))
    error(problem, 0)
  end
  write.rest(q)
  line.flush(q, line_plan)
  wake.flush(q)
  write.begin(q)
end

-- Write the fields of meta that changed. That time went on is worth a write of its own once a second, and exact only
-- while leases are held: by it silence is told, after which they get a grace.
function ctx.scalars(q)
  local changed = {}
  for name, value in pairs(q.m) do
    if value ~= q.was[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = value
    end
  end
  if #changed == 2 and changed[1] == 'last' and q.m.last - q.was.last < 1000000 and q.m.n_running == 0 then
    return
  end
  if #changed > 0 then
    redis.call('HSET', q.key, unpack(changed))
  end
  for i = 1, #changed, 2 do
    q.was[changed[i]] = changed[i + 1]
  end
end
