-- A call ended: its places are free, and what it did not use comes back, or what it used beyond that is charged.
-- keys meta
-- args call:text fence:int *used:text
-- reply how many leases it still had
-- Two words for each limit: its name and the true charge, '' for what was reserved.
local q = ctx.open(meta_key)
local found = 0
for i = 1, #used, 2 do
  local row = limits.row(q, used[i])
  local lease, at = limits.lease(row, call, fence)
  if lease then
    found = found + 1
    table.remove(row[3], at)
    local beyond = (tonumber(used[i + 1]) or lease[3]) - lease[3]
    if beyond > 0 then
      row[1] = math.max(row[1], q.now) + beyond
    else
      local back = math.min(-beyond, lease[4])
      row[1], row[5] = row[1] - back, row[5] - back
    end
    limits.took(q, row, lease)
    limits.keep(q, used[i], row)
  end
end
if found > 0 then
  ctx.commit(q)
end
return found
