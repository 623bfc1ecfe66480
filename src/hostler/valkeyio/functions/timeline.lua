-- The stream entries that hold the events of one job.
-- keys meta
-- args seq:text
-- flags no-writes
-- reply {1, {id, packed entry, ...}, {offset, ...}}, or {0} when there is no such job
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record then
  return {0}
end
local entries, offsets, last = {}, {}, ''
for _, offset in ipairs(record[F.events]) do
  local got = redis.call('XREVRANGE', q.p .. 'ev', int(offset) .. '-0', '-', 'COUNT', 1)[1]
  if got and got[1] ~= last then
    last = got[1]
    entries[#entries + 1] = got[1]
    entries[#entries + 1] = got[2][2]
  end
  offsets[#offsets + 1] = int(offset)
end
return {1, entries, offsets}
