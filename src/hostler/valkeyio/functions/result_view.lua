-- How the cache of results is used.
-- keys meta
-- flags no-writes
-- reply {entries, bytes, {kind|what, count, ...}}
local q = ctx.open(meta_key)
return {
  redis.call('ZCOUNT', q.p .. 'rends', '(' .. int(q.now), '+inf'),
  tonumber(redis.call('HGET', q.p .. 'rsize', 'all') or '0'),
  redis.call('HGETALL', q.p .. 'rstat'),
}
