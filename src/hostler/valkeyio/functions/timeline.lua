-- The stream entries that hold the events of one job.
-- keys meta
-- args seq:text most:int
-- flags no-writes
-- reply {1, {id, packed entry, ...}, {offset, ...}, epoch, {life, ...}}, or {0} when there is no such job
-- Moves are found by their offsets. Progress and refusals, which the record does not list, are looked for among
-- at most `most` entries that follow a claim, the latest claim first; the latest progress is always found.
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record then
  return {0}
end
local stream, number = q.p .. 'ev', tonumber(seq) - SEQ_BASE
local entries, offsets, have, claims = {}, {}, {}, {}

local function add(entry)
  if not have[entry[1]] then
    have[entry[1]] = true
    entries[#entries + 1] = entry[1]
    entries[#entries + 1] = entry[2][2]
  end
end

local function at(offset)
  local entry = redis.call('XREVRANGE', stream, int(offset) .. '-0', '-', 'COUNT', 1)[1]
  if entry then
    add(entry)
    local event = cmsgpack.unpack(entry[2][2])[2][offset - tonumber(string.match(entry[1], '^%d+')) + 1]
    return event and event[1] == V.claim
  end
  return false
end

for i, offset in ipairs(record[F.events]) do
  offsets[i] = int(offset)
  if at(offset) then
    claims[#claims + 1] = i
  end
end
for i = #claims, 1, -1 do
  local from, to = record[F.events][claims[i]], record[F.events][claims[i] + 1]
  local got = most > 0 and redis.call(
    'XRANGE', stream, int(from + 1) .. '-0', to and int(to - 1) .. '-0' or '+', 'COUNT', most
  ) or {}
  most = most - #got
  for _, entry in ipairs(got) do
    for _, event in ipairs(cmsgpack.unpack(entry[2][2])[2]) do
      if event[2] == number then
        add(entry)
      end
    end
  end
end
local progress = life.remotes(q, {seq})[seq]
if progress[G.offset] > 0 then
  at(progress[G.offset])
end
return {1, entries, offsets, q.m.epoch, redis.call('ZRANGE', q.p .. 'epochs', 0, -1)}
