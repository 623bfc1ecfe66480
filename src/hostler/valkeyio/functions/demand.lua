-- Jobs that may be claimed and name models, by lane.
-- keys meta
-- args most:int
-- flags no-writes
-- reply {now, {lane, packed lane, waiting, ready at of the head of its line, ...}}; nothing while the queue is held
-- At most `most` tenants, those whose turn comes first, and the 16 lanes of each whose jobs came first are looked at.
local q = ctx.open(meta_key)
if q.m.paused == 1 or q.m.draining == 1 then
  return {int(q.now), {}}
end
local found, seqs, where = {}, {}, {}
for _, tenant in ipairs(redis.call('ZRANGE', q.p .. 'TN', 0, most - 1)) do
  local numbers = {}
  for _, lane in ipairs(redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 15)) do
    numbers[#numbers + 1] = tonumber(lane)
  end
  local rows = lanes.rows(q, numbers)
  for _, lane in ipairs(numbers) do
    local known = found[lane]
    if known == nil and rows[lane] then
      local needs = cmsgpack.unpack(rows[lane][L.lane]).needs
      known = needs and needs.models and {rows[lane][L.lane], 0, 0} or false
      found[lane] = known
    end
    if known then
      local leaf = q.p .. 'r:' .. lane .. ':' .. tenant
      local head = redis.call('ZRANGE', leaf, 0, 0)[1]
      known[2] = known[2] + redis.call('ZCARD', leaf)
      if head then
        seqs[#seqs + 1], where[#where + 1] = string.match(head, '^%d+'), known
      end
    end
  end
end
for first = 1, #seqs, 1000 do
  for i, record in ipairs(rec.many(q, {unpack(seqs, first, math.min(first + 999, #seqs))})) do
    local known = where[first + i - 1]
    if record and (known[3] == 0 or record[F.ready_at] < known[3]) then
      known[3] = record[F.ready_at]
    end
  end
end
local words = {}
for lane, known in pairs(found) do
  if known and known[2] > 0 then
    for _, word in ipairs({lane, known[1], known[2], int(known[3] > 0 and known[3] or q.now)}) do
      words[#words + 1] = word
    end
  end
end
return {int(q.now), words}
