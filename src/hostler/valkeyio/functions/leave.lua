-- An endpoint leaves the registry; what runs there is not touched.
-- keys meta
-- args endpoint:text reason:text
-- flags allow-oom
-- reply 1 when it was there, else 0
local q = ctx.open(meta_key)
if not places.row(q, endpoint) then
  return 0
end
places.remove(q, endpoint, reason)
ctx.commit(q)
return 1
