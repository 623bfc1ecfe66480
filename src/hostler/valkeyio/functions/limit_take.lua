-- A call takes what it needs of all its limits, or nothing of any.
-- keys meta
-- args call:text fence:int lease:int *wants:text
-- reply {now, 0, ''} when granted, else {now, microseconds until it is worth asking again, the limit that says so}
-- A want is five words: limit, kind, charge, allowance (of calls in flight: how many), how the limit is written.
local q = ctx.open(meta_key)
local taken, longest, slowest = {}, 0, ''
for i = 1, #wants, 5 do
  local row = limits.row(q, wants[i])
  local want = {kind = wants[i + 1], charge = tonumber(wants[i + 2]), allow = tonumber(wants[i + 3])}
  want.about = wants[i + 4]
  local lease, at = limits.lease(row, call, fence)
  if lease and want.kind == 'amount' and lease[5] < fence then
    table.remove(row[3], at) -- the work runs once more: what it used before stays charged
    lease = nil
  end
  want.lease = want.kind ~= 'rate' and lease or nil
  local after = limits.after(q, row, want)
  if after > longest then
    longest, slowest = after, wants[i]
  end
  taken[#taken + 1] = {wants[i], row, want}
end
if longest > 0 then
  return {int(q.now), int(math.ceil(longest)), slowest}
end
limits.trim(q)
for _, one in ipairs(taken) do
  limits.take(q, one[2], one[3], call, fence, q.now + lease)
  limits.keep(q, one[1], one[2])
end
ctx.commit(q)
return {int(q.now), '0', ''}
