-- The latest preview picture of a running job.
-- keys meta
-- args seq:text
-- flags no-writes
-- reply {whether the job is there (1 or 0), the picture or ''}
local q = ctx.open(meta_key)
local got = redis.call('MGET', q.p .. 'j:' .. seq, q.p .. 'pv:' .. seq)
return {got[1] and 1 or 0, got[2] or ''}
