-- A worker leaves; its leases are not touched.
-- keys meta
-- args worker:text state:text reason:text
-- flags allow-oom
-- reply 1 when it was live, else 0
local q = ctx.open(meta_key)
local row = staff.row(q, worker)
if not row or not staff.alive(q, worker) then
  return 0
end
staff.bury(q, worker, row, state, reason, q.now)
ctx.commit(q)
return 1
