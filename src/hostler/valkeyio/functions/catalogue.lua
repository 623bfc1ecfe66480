-- Every declared kind and queue, unless the caller's version is the present one.
-- keys meta
-- args version:text
-- flags no-writes
-- reply {version} when it is known, else {version, {kind, row, ...}, {queue, row, ...}}
local p = ctx.prefix(meta_key)
local now = redis.call('GET', p .. 'v') or '0'
if now == version then
  return {now}
end
return {now, redis.call('HGETALL', p .. 'kinds'), redis.call('HGETALL', p .. 'queues')}
