-- How limits are now.
-- keys meta
-- args *names:text
-- flags no-writes
-- reply list of {microseconds paid for in advance, microseconds that nobody may call, leases}
local q = ctx.open(meta_key)
local reply = {}
for _, name in ipairs(names) do
  local row = limits.row(q, name)
  reply[#reply + 1] = {int(math.max(0, row[1] - q.now)), int(math.max(0, row[2] - q.now)), int(#row[3])}
end
return reply
