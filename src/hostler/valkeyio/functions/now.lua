-- The engine's clock, as the functions of this queue see it.
-- keys meta
-- flags no-writes
-- reply microseconds since the epoch
local q = ctx.open(meta_key)
return int(q.now)
