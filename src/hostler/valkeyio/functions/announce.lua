-- A worker says that it lives, how it is and what it offers; an illegal move of its state is refused.
-- keys meta
-- args worker:text state:text ttl:int paths:pack said:blob reason:text queues:text
-- reply {1, 1 when commands wait for it else 0, version of the catalogue} or {0, state before} when there is no such move
-- `paths` maps the state before ('none' for an unknown worker) to the states that lead to the new one.
local q = ctx.open(meta_key)
local row = staff.row(q, worker) or {false, 0, '', ''}
if row[1] and not staff.alive(q, worker) and redis.call('ZSCORE', q.p .. 'alive', worker) then
  staff.move(q, worker, row, 'lost', 'its lease ran out')
end
local before = row[1] or 'none'
local path = before == state and {} or paths[before]
if not path then
  return {0, before}
end
for _, step in ipairs(path) do
  staff.move(q, worker, row, step, step == 'lost' and 'another process took its name' or reason)
end
if row[5] ~= queues then
  staff.changed(q)
end
staff.keep(q, worker, {state, q.now, reason, said, queues})
write.zadd(q, 'alive', q.now + ttl, worker)
write.zrem(q, 'gone', worker)
ctx.commit(q)
return {1, redis.call('EXISTS', q.p .. 'cmd:' .. worker), redis.call('GET', q.p .. 'v') or '0'}
