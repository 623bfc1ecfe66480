-- Every declared kind and queue, unless the caller's version is the present one.
-- keys meta
-- args version:text
-- flags no-writes
-- reply {version} when it is known, else {version, {kind, row, ...}, {queue, row, ...}}
local q = ctx.open(meta_key)
local now = redis.call('GET', q.p .. 'v') or '0'
if now == version then
  return {now}
end
return {now, redis.call('HGETALL', q.p .. 'kinds'), redis.call('HGETALL', q.p .. 'queues')}
