-- Parts of settle: one way to end for each ending, and the refusal of a stale fence.

local settle = {}

-- Refuse a stale fence: counted, and one event per job and fence.
function settle.reject(q, seq, record, fence, worker)
  if not record or class.among(record[F.rejected] or {}, fence) then
    return
  end
  record[F.rejected] = record[F.rejected] or {}
  table.insert(record[F.rejected], fence)
  if #record[F.rejected] > EVENTS_KEPT then
    table.remove(record[F.rejected], 1)
  end
  q.m.t_rejected = q.m.t_rejected + 1
  events.note(q, V.reject, seq, record, worker, {fence = fence})
end

-- What an event says about the failure that ended an attempt: its packed form, or nothing.
local function facts(item)
  return item[9] or nil
end

local function again(q, seq, record, item, attempt, found)
  local counted, overload = item[4], item[5]
  local spent = counted and record[F.attempts] + 1 >= record[F.max_attempts]
  local overrun = overload and record[F.overloads] + 1 > record[F.max_overloads]
  if overload then
    record[F.overloads] = record[F.overloads] + 1
  elseif counted then -- what used no attempt says nothing of the service's room
    record[F.overloads] = 0
  end
  if spent or overrun then
    attempt('fail', counted)
    return life.finish(q, V.fail, seq, record, S.dead, facts(item))
  end
  attempt('retry', counted)
  q.m.t_retried = q.m.t_retried + 1
  life.leave(q, seq, record)
  life.relane(q, record, item[7] > 0 and lanes.number(q, found, item[7]) or nil)
  if item[6] > 0 then
    return life.schedule(q, V.retry, seq, record, q.now + item[6], facts(item))
  end
  life.ready(q, V.retry, seq, record, facts(item))
end

-- End the attempt of a lease that is held.
function settle.apply(q, seq, record, item, progress, found)
  local ending = item[3]
  local function attempt(outcome, counted)
    local endpoint = item[10] or progress[G.endpoint]
    life.attempt(q, seq, record, outcome, item[9], counted, endpoint, progress[G.remote])
  end
  record[F.settled_fence], record[F.settled_ending] = item[2], ending
  if record[F.cancel] > 0 or ending == E.stopped then
    attempt('cancel', false)
    life.finish(q, V.cancel, seq, record, S.cancelled, facts(item))
  elseif ending == E.succeed then
    if item[8] then
      write.put(q, 's:' .. seq, item[8])
    end
    life.finish(q, V.finish, seq, record, S.succeeded)
  elseif ending == E.again then
    again(q, seq, record, item, attempt, found)
  elseif ending == E.hold then
    attempt('wait', false)
    life.leave(q, seq, record)
    life.hold(q, seq, record, item[11], item[6] > 0 and q.now + item[6] or 0, facts(item))
  else
    attempt('fail', true)
    life.finish(q, V.fail, seq, record, S.dead, facts(item))
  end
end
