-- Make delayed jobs that are due ready.
-- keys  meta
-- flags allow-oom
-- reply microseconds until one may be due, below zero when none waits
local q = ctx.open(meta_key)
due.promote(q, 100)
ctx.commit(q)
return due.left(q)
