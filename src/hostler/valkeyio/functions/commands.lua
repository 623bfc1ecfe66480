-- The commands that wait for a worker; those up to `after` it has heard, so they go.
-- keys meta
-- args worker:text after:int
-- flags allow-oom
-- reply {number, order, number, order, ...}, oldest first; numbers rise
-- A number that lies above all (the engine was restored since) says nothing.
-- Nothing goes before the worker says that it came: an answer that is lost on the way is given again.
local q = ctx.open(meta_key)
local key, reply = q.p .. 'cmd:' .. worker, {}
for _, packed in ipairs(redis.call('LRANGE', key, 0, -1)) do
  local one = cmsgpack.unpack(packed)
  if one[1] > after or after > q.m.off then
    reply[#reply + 1] = one[1]
    reply[#reply + 1] = one[2]
  else
    redis.call('LPOP', key)
  end
end
return reply
