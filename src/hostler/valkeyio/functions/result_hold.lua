-- Renew a flight.
-- keys meta
-- args key:text job:text fence:int lasts:int
-- reply 1, or 0 when another job or a later attempt has it
local q = ctx.open(meta_key)
if not results.mine(q, key, job, fence) then
  return 0
end
results.take(q, key, job, fence, lasts)
ctx.commit(q)
return 1
