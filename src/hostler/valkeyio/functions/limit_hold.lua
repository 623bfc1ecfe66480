-- A service said that nobody should call for a while; the longest that was said counts.
-- keys meta
-- args name:text wait:int
-- reply microseconds until calls may go again
local q = ctx.open(meta_key)
limits.trim(q)
local row = limits.row(q, name)
row[2] = math.max(row[2], q.now + wait)
limits.keep(q, name, row)
ctx.commit(q)
return int(row[2] - q.now)
