-- A call takes what it needs of all its limits, or nothing of any.
-- keys meta
-- args call:text lease:int *wants:text
-- reply {now, 0, ''} when granted, else {now, microseconds until it is worth asking again, the limit that says so}
-- A want is four words: limit, kind, charge, allowance (of calls in flight: how many).
local q = ctx.open(meta_key)
local taken, longest, slowest = {}, 0, ''
for i = 1, #wants, 4 do
  local row = limits.row(q, wants[i])
  local want = {kind = wants[i + 1], charge = tonumber(wants[i + 2]), allow = tonumber(wants[i + 3])}
  want.lease = want.kind ~= 'rate' and limits.lease(row, call) or nil
  local after = limits.after(q, row, want)
  if after > longest then
    longest, slowest = after, wants[i]
  end
  taken[#taken + 1] = {wants[i], row, want}
end
if longest > 0 then
  return {int(q.now), int(math.ceil(longest)), slowest}
end
for _, one in ipairs(taken) do
  limits.take(q, one[2], one[3], call, q.now + lease)
  limits.keep(q, one[1], one[2])
end
ctx.commit(q)
return {int(q.now), '0', ''}
