-- The limits that say anything now, a slice at a time.
-- keys meta
-- args cursor:text
-- flags no-writes
-- reply {next cursor ('0': that was all), {name, how it is written, microseconds paid for in advance, held, leases, ...}}
local q = ctx.open(meta_key)
local scanned, reply = redis.call('ZSCAN', q.p .. 'limends', cursor, 'COUNT', 200), {}
for i = 1, #scanned[2], 2 do
  if tonumber(scanned[2][i + 1]) > q.now then
    local row = limits.row(q, scanned[2][i])
    for _, word in ipairs({
      scanned[2][i], row[4], int(math.max(0, row[1] - q.now)), int(math.max(0, row[2] - q.now)), int(#row[3]),
    }) do
      reply[#reply + 1] = word
    end
  end
end
return {scanned[1], reply}
