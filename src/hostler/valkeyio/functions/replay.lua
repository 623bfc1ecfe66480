-- Make a dead job ready again: a new generation with fresh budgets in the lane it was submitted to.
-- keys meta
-- args seq:text operation:text reason:text lane_given:pack
-- flags allow-oom
-- reply {1, state} done, {2, state} it is not dead, {3} the queue has all the lanes it may have, {0} no such job
local q = ctx.open(meta_key)
local generation, past = ops.promised(q, operation)
local record = rec.one(q, seq)
if past and not (record and record[F.state] == S.dead and record[F.generation] == generation) then
  return past
elseif not record then
  return {0}
elseif record[F.state] ~= S.dead then
  return {2, record[F.state]}
end
local lane = lanes.number(q, lanes.look_up(q, lane_given), 1)
if not lane then
  return {3}
end
local answer = ops.promise(q, operation, record[F.generation], {1, S.ready})
life.leave(q, seq, record)
record[F.lane], record[F.generation] = lane, record[F.generation] + 1
record[F.attempts], record[F.crashes], record[F.overloads], record[F.bad_workers] = 0, 0, 0, false
record[F.finished], record[F.cancel], record[F.queue_until], record[F.worker] = 0, 0, 0, false
life.count(q, record, 1)
life.ready(q, V.replay, seq, record, ops.facts(reason))
if record[F.deadline] > 0 then
  ctx.expires(q, record[F.deadline], seq)
end
q.m.t_replayed = q.m.t_replayed + 1
ctx.commit(q)
return answer
