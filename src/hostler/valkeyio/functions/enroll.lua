-- An endpoint says, or somebody says for it, that it lives, where it is and what it is.
-- keys meta
-- args endpoint:text ttl:int said:blob
-- reply 1 when that was news, 0 when it only renewed its lease
local q = ctx.open(meta_key)
local row = places.row(q, endpoint)
local live = row and places.alive(q, endpoint)
local news = not live or row[3] ~= said
if news then
  places.turn(q, endpoint, live and 'changed' or 'joined', '')
end
write.hset(q, 'endpoints', endpoint, cmsgpack.pack({live and row[1] or q.now, q.now, said}))
write.zadd(q, 'epends', q.now + ttl, endpoint)
ctx.commit(q)
return news and 1 or 0
