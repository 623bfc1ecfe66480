-- Leave a command for a live worker.
-- keys meta
-- args worker:text order:text reason:text kept:int
-- reply 1, or 0 when no such worker lives
local q = ctx.open(meta_key)
if not staff.alive(q, worker) then
  return 0
end
local offset = events.say(q, 'command', false, nil, worker, {command = order, reason = reason})
write.push(q, 'cmd:' .. worker, cmsgpack.pack({offset, order}))
ctx.commit(q)
if kept > 0 then
  redis.call('PEXPIRE', q.p .. 'cmd:' .. worker, kept)
end
return 1
