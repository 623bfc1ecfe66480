-- Who counts as live in this queue; nobody has to look while the last upkeep is fresh.
-- keys meta
-- flags no-writes
-- reply {0} when upkeep was done less than half a second ago, else {1, worker, worker, ...}
local q = ctx.open(meta_key)
if q.m.tick > 0 and q.now - q.m.tick < 500000 then
  return {0}
end
local reply = {1}
for worker in pairs(class.workers(q)) do
  reply[#reply + 1] = worker
end
return reply
