-- A call takes longer than its leases, or somebody goes on with what another began.
-- keys meta
-- args call:text fence:int lease:int *names:text
-- reply how many leases it still had
local q = ctx.open(meta_key)
local found = 0
for _, name in ipairs(names) do
  local row = limits.row(q, name)
  local one = limits.lease(row, call, fence)
  if one then
    found = found + 1
    one[2], one[5] = math.max(one[2], q.now + lease), fence
    limits.keep(q, name, row)
  end
end
if found > 0 then
  ctx.commit(q)
end
return found
