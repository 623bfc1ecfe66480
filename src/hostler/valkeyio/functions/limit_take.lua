-- A call takes what it needs of all its limits, or nothing of any.
-- keys meta
-- args call:text fence:int lease:int patience:int *wants:text
-- reply {now, 0, '', ''} when granted, else {now, microseconds until it is worth asking again, the limit that says so,
-- whether that is a moment of its own}
-- A want is six words: limit, kind, charge, allowance (of calls in flight: how many), how the limit is written, and for
-- a limit with a line whether the call comes last there or has held a moment.
local q = ctx.open(meta_key)
local taken, longest, slowest = {}, 0, nil
for i = 1, #wants, 6 do
  local row = limits.row(q, wants[i])
  local want = {kind = wants[i + 1], charge = tonumber(wants[i + 2]), allow = tonumber(wants[i + 3])}
  want.about, want.line = wants[i + 4], wants[i + 5]
  local lease, at = limits.lease(row, call, fence)
  if lease and want.kind == 'amount' and lease[5] < fence then
    table.remove(row[3], at) -- the work runs once more: what it used before stays charged
    lease = nil
  end
  want.lease = want.kind ~= 'rate' and lease or nil
  local one = {wants[i], row, want, limits.after(q, row, want)}
  local after = want.line == 'last' and not want.lease and limits.behind(q, row, want, one[4]) or one[4]
  if after > longest then
    longest, slowest = after, one
  end
  taken[#taken + 1] = one
end
if slowest then
  local own = ''
  if limits.lacks(slowest[3], longest, patience) then
    longest, own = limits.line(q, slowest[2], slowest[3], slowest[4])
    slowest[2][4] = slowest[3].about
    limits.keep(q, slowest[1], slowest[2])
    ctx.commit(q)
  end
  return {int(q.now), int(math.ceil(longest)), slowest[1], own}
end
limits.trim(q)
for _, one in ipairs(taken) do
  limits.take(q, one[2], one[3], call, fence, q.now + lease)
  limits.keep(q, one[1], one[2])
end
ctx.commit(q)
return {int(q.now), '0', '', ''}
