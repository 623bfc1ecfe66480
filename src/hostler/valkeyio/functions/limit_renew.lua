-- A call takes longer than its leases.
-- keys meta
-- args call:text lease:int *names:text
-- reply how many leases it still had
local q = ctx.open(meta_key)
local found = 0
for _, name in ipairs(names) do
  local row = limits.row(q, name)
  local one = limits.lease(row, call)
  if one then
    found = found + 1
    one[2] = math.max(one[2], q.now + lease)
    limits.keep(q, name, row)
  end
end
if found > 0 then
  ctx.commit(q)
end
return found
