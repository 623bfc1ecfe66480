-- An operator's word on an endpoint: `pause`, `resume`, or `reset` its breakers.
-- keys meta
-- args endpoint:text order:text reason:text
-- reply 1 when it changed anything, else 0
local q = ctx.open(meta_key)
local mark = places.mark(q, endpoint)
local before = mark[1]
if order == 'pause' then
  mark[1] = reason
elseif order == 'resume' then
  mark[1] = false
else
  mark[2] = mark[2] + 1
end
if order ~= 'reset' and before == mark[1] then
  return 0
end
places.turn(q, endpoint, order, reason)
write.hset(q, 'epmarks', endpoint, cmsgpack.pack(mark))
ctx.commit(q)
return 1
