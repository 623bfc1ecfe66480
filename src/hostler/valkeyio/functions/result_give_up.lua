-- End a flight without a result.
-- keys meta
-- args key:text job:text fence:int
-- flags allow-oom
-- reply 1, or 0 when this job had no flight
local q = ctx.open(meta_key)
local mine, held = results.mine(q, key, job, fence)
if not (mine and held) then
  return 0
end
write.drop(q, 'rf:' .. key)
ctx.commit(q)
return 1
