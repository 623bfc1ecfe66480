-- Operations: the same id gives the first answer again. The caller puts verb and job into the id.
-- An answer is either kept with the call's other writes, by verbs that may be done twice, or promised before them.

local ops = {}

function ops.seen(q, id)
  local got = redis.call('GET', q.p .. 'op:' .. id)
  return got and cmsgpack.unpack(got)
end

-- Remember the answer with the writes of this call, and return it.
function ops.keep(q, id, answer)
  write.timed(q, 'op:' .. id, cmsgpack.pack(answer), ctx.config(q)[C.operations])
  return answer
end

-- Promise an answer before anything is written. `mark` is what the job shows as long as the promise is not kept: by
-- it the same call, sent again after an error midway, tells whether there is anything left to do.
function ops.promise(q, id, mark, answer)
  redis.call('SET', q.p .. 'op:' .. id, cmsgpack.pack({mark, answer}), 'PX', ctx.config(q)[C.operations])
  return answer
end

-- The mark and the answer of a promise, nil when none was made.
function ops.promised(q, id)
  local past = ops.seen(q, id)
  if past then
    return past[1], past[2]
  end
end

local function facts(reason)
  return reason ~= '' and {reason = reason} or nil
end

-- An operator's verb on the queue: set scalars, say it once. Returns true when that changed anything.
function ops.queue(q, verb, wanted, reason)
  local changed = false
  for name, value in pairs(wanted) do
    changed = changed or q.m[name] ~= value
    q.m[name] = value
  end
  if changed then
    q.m.reason = reason
    events.say(q, verb, false, nil, false, facts(reason))
  end
  return changed
end

ops.facts = facts
