-- A worker saw the state of an endpoint change: one event.
-- keys meta
-- args worker:text endpoint:text was:text state:text reason:text
-- flags allow-oom
-- reply the offset of the event
local q = ctx.open(meta_key)
local offset = events.say(q, 'endpoint', false, nil, worker, {
  endpoint = endpoint, from = was, to = state, reason = reason ~= '' and reason or nil,
})
ctx.commit(q)
return offset
