-- Stream entries from the one that holds the offset after `after`.
-- keys meta
-- args after:int most:int
-- flags no-writes
-- reply {epoch, latest offset, first kept offset (0: none is kept), {id, packed entry, ...}}
local q = ctx.open(meta_key)
local first = redis.call('XRANGE', q.p .. 'ev', '-', '+', 'COUNT', 1)[1]
local kept = first and string.match(first[1], '^%d+') or '0'
local entries = {}
if first and after < q.m.off then
  local from = redis.call('XREVRANGE', q.p .. 'ev', int(after + 1) .. '-0', '-', 'COUNT', 1)[1]
  for _, entry in ipairs(redis.call('XRANGE', q.p .. 'ev', from and from[1] or '-', '+', 'COUNT', most)) do
    entries[#entries + 1] = entry[1]
    entries[#entries + 1] = entry[2][2]
  end
end
return {q.m.epoch, int(q.m.off), kept, entries}
