-- Compare some members of one line, or of one waiting room of a concurrency key, with the records.
-- keys meta
-- args repair:flag key:text *members:text
-- flags allow-oom
-- reply list of sentences
local q = ctx.open(meta_key)
local found, gone, seqs = {}, {}, {}
local there = redis.call('ZMSCORE', q.p .. key, unpack(members))
for i, member in ipairs(members) do
  seqs[i] = string.match(member, '^%d+') or '0'
end
for i, record in ipairs(rec.many(q, seqs)) do
  local place, name
  if record and record[F.state] == S.ready then
    place, name = audit.line(seqs[i], record)
  end
  if there[i] and (place ~= key or name ~= members[i]) then
    found[#found + 1] = key .. ' lists ' .. members[i] .. ', which does not wait there'
    gone[#gone + 1] = members[i]
  end
end
if repair and #gone > 0 then
  redis.call('ZREM', q.p .. key, unpack(gone))
end
return found
