-- Store a queue's configuration; it holds from the next call on.
-- keys  meta
-- args  config:blob hash:text
-- flags allow-oom
-- reply 1
local q = ctx.open(meta_key)
write.put(q, 'cfg', config)
q.m.cfg = hash
ctx.commit(q)
return 1
