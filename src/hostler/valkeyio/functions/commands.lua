-- Take the commands that wait for a worker.
-- keys meta
-- args worker:text
-- flags allow-oom
-- reply list of commands, oldest first
local q = ctx.open(meta_key)
local found = redis.call('LRANGE', q.p .. 'cmd:' .. worker, 0, -1)
if #found > 0 then
  redis.call('UNLINK', q.p .. 'cmd:' .. worker)
end
return found
