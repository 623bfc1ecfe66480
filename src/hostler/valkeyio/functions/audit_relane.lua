-- Move a job whose lane is gone to a lane that is there.
-- keys meta
-- args seq:text lane_given:pack
-- flags allow-oom
-- reply 1 when it was moved, 2 when there was no need, 0 when the queue has all the lanes it may have
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record or record[F.finished] > 0 or redis.call('HEXISTS', q.p .. 'lanes', record[F.lane]) == 1 then
  return 2
end
local found = lanes.look_up(q, lane_given)
if found.numbers[1] and redis.call('HEXISTS', q.p .. 'lanes', found.numbers[1]) == 0 then
  found.numbers[1] = nil
end
local lane = lanes.number(q, found, 1)
if not lane then
  return 0
end
local ready = record[F.state] == S.ready
if ready then
  line.leave(q, seq, record)
end
life.relane(q, record, lane)
rec.touch(q, seq, record)
if ready then
  line.enter(q, seq, record)
end
ctx.commit(q)
return 1
