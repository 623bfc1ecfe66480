-- What these jobs count for, from their records.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply {hash, field, number, hash, field, number, ...}
local q = ctx.open(meta_key)
local sums = {}
local function add(hash, field, value)
  sums[hash] = sums[hash] or {}
  sums[hash][field] = (sums[hash][field] or 0) + value
end
for _, record in ipairs(rec.many(q, seqs)) do
  local state = record and record[F.state]
  if record then
    add('meta', 'n_' .. STATES[state], 1)
  end
  if state == S.ready or state == S.scheduled or state == S.waiting or state == S.running then
    local lane, key = int(record[F.lane]), record[F.ckey] and 'k:' .. record[F.ckey]
    add('meta', 'bytes', record[F.size])
    add('td', record[F.tenant], 1)
    add('lc', lane, 1)
    if state == S.ready then
      add('lr', lane, 1)
    end
    if key and state == S.ready then
      add(key, (record[F.parked] == 1 and 'p' or 'q') .. lane, 1)
    elseif key and state == S.running then
      add(key, 'r', 1)
    end
    for i = 1, #(record[F.taken] or {}), 2 do
      add('use', record[F.taken][i], record[F.taken][i + 1])
    end
  end
end
local reply = {}
for hash, fields in pairs(sums) do
  for field, value in pairs(fields) do
    reply[#reply + 1] = hash
    reply[#reply + 1] = field
    reply[#reply + 1] = int(value)
  end
end
return reply
