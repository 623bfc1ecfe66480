-- Audits: a job's record is the truth; where each job has to be found follows from it.

local audit = {}
local INDEXES = {'delayed', 'waiting', 'leases', 'expiry', 'cancels', 'done', 'dead'}
audit.INDEXES = INDEXES

-- The score that a job has to have in each index by time; absent where it must not be. Leases end by themselves.
function audit.places(q, record)
  local state, places = record[F.state], {}
  local ended = state == S.succeeded or state == S.cancelled or state == S.expired or state == S.dead
  if state == S.scheduled then
    places.delayed = record[F.ready_at]
  elseif state == S.waiting then
    places.waiting = record[F.ready_at] > 0 and record[F.ready_at] or math.huge
  elseif state == S.running then
    places.leases = q.now + record[F.lease]
    places.cancels = record[F.cancel] > 0 and record[F.cancel] or nil
  elseif ended then
    places[state == S.dead and 'dead' or 'done'] = record[F.finished]
  end
  places.expiry = not ended and life.ends(record) or nil
  return places
end

-- The line or the waiting room of a ready job: key, member.
function audit.line(seq, record)
  if record[F.parked] == 1 then
    return 'kw:' .. record[F.lane] .. ':' .. record[F.ckey], seq
  end
  return 'r:' .. record[F.lane] .. ':' .. record[F.tenant], line.member(seq, record)
end

-- A job that was put back into an index by time must be looked for in time, too.
function audit.due(q, name, at, seq)
  if name == 'expiry' then
    ctx.expires(q, at, seq)
  elseif (name == 'delayed' or name == 'waiting') and at < math.huge then
    ctx.due(q, at)
  end
end

-- Scores of these jobs in every index by time: scores[index][i].
function audit.scores(q, seqs)
  local scores = {}
  for _, name in ipairs(INDEXES) do
    scores[name] = redis.call('ZMSCORE', q.p .. name, unpack(seqs))
  end
  return scores
end

-- Compare one number with what it should be.
function audit.number(found, name, is, should)
  if is ~= should then
    found[#found + 1] = name .. ' is ' .. int(is) .. ', counted ' .. int(should)
    return true
  end
  return false
end
