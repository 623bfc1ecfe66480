-- Store the row of a kind or a queue; what changes nothing raises no version.
-- keys meta
-- args family:text name:text row:blob queue:text queue_row:blob reason:text
-- reply {1 when it changed, former row or '', version}
-- The version is raised first: after an error between the two, readers look once too often, not once too seldom. It is
-- a time, so that one which a fail-over lost is not given to other rows.
-- `family` is `kinds` or `queues`; `queue_row` is stored for `queue` when that has no row ('' for neither).
local q = ctx.open(meta_key)
local before = redis.call('HGET', q.p .. family, name)
local missing = queue ~= '' and redis.call('HEXISTS', q.p .. 'queues', queue) == 0
if before == row and not missing then
  return {0, before, redis.call('GET', q.p .. 'v') or '0'}
end
if missing then
  write.hset(q, 'queues', queue, queue_row)
end
write.hset(q, family, name, row)
events.say(q, 'declare', false, nil, nil, {
  family = family, name = name, queue = queue, reason = reason ~= '' and reason or nil,
})
local version = int(math.max(tonumber(redis.call('GET', q.p .. 'v') or '0') + 1, q.now))
write.put(q, 'v', version)
ctx.commit(q)
return {1, before or '', version}
