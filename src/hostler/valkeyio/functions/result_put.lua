-- Keep a result, and end the job's flight.
-- keys meta
-- args key:text kind:text job:text ttl:int most:int most_bytes:int sealed:blob
-- reply 1
local q = ctx.open(meta_key)
results.trim(q, key, most, most_bytes - #sealed)
results.weigh(q, key, #sealed)
results.count(q, kind, 'kept')
write.zadd(q, 'rends', q.now + ttl * 1000, key)
write.timed(q, 'rc:' .. key, sealed, ttl)
local _, held = results.mine(q, key, job, 0)
if held and held[1] == job then
  write.drop(q, 'rf:' .. key)
end
ctx.commit(q)
return 1
