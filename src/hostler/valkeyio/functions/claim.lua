-- Lease the best jobs that one worker fits, in one step.
-- keys  meta
-- args  worker:text class_name:text limit:int pools:pack standings:pack covers:pack upto:int lease:int operation:text
--       suspicion:int
-- reply {now, born, status, rest}: 0 leases {lane, row, ...}, {job, ...}; 1 judge lanes {upto, {lane, row, ...}}; 2 held
-- `pools` is {own, of offer 0, ...}, `standings` what `choice.weigh` reads, by offer.
-- `covers` and `upto` answer an earlier status 1; `lease` is 0 for the queue's own. A job is {seq, record, envelope,
-- progress, checkpoint, attempts}; `suspicion` is the level of the worst that the worker holds (policy.suspicion).
-- A limit of 0 only asks what was given under the operation, and ends it. Status 2: the queue is paused or drained.
local q = ctx.open(meta_key)
local born = int(q.m.born)
local replayed = claim.replay(q, operation, worker)
if replayed then
  return {q.now, born, 0, replayed[1], replayed[2]}
end
if limit == 0 then
  claim.remember(q, operation, {})
  ctx.commit(q)
  return {q.now, born, 0, {}, {}}
end
local mine = class.open(q, class_name)
if upto > mine.known then
  mine = class.cover(q, class_name, covers, upto)
end
class.present(q, worker, class_name)
if mine.known < q.m.lane then
  ctx.commit(q)
  return {q.now, born, 1, class.unjudged(q, mine, 200)}
end
local awake = due.promote(q, 100)
if q.m.exp > 0 and q.m.exp <= q.now then
  awake = awake + upkeep.expire(q)
end
if awake > 0 then
  ctx.commit(q)
end
local s = {class = mine, worker = worker, limit = limit, picks = {}, beside = suspicion}
if q.m.paused == 0 and q.m.draining == 0 then
  s.room = room.open(q, pools, standings)
  pick.run(q, s)
end
local got = claim.grant(q, s.picks, worker, lease > 0 and lease or ctx.config(q)[C.lease])
if #got > 0 then
  claim.remember(q, operation, got)
end
ctx.commit(q)
if #got == 0 then
  wake.idle(q, worker, class_name)
else
  wake.busy(q, worker, class_name)
end
if q.m.paused == 1 or q.m.draining == 1 then
  return {q.now, born, 2}
end
local rows, jobs = claim.reply(q, got)
return {q.now, born, 0, rows, jobs}
