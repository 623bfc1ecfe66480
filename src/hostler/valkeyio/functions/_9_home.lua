-- Where the jobs of a session ran last, so that the next one goes there: read when it is placed, written when it is leased.

-- Where the last job of this one's session ran, as far as that is still remembered.
function choice.home(q, state, record)
  local key = record[F.affinity]
  if not key or #state.standings == 0 then
    return nil
  end
  if state.homes[key] == nil then
    local got = redis.call('GET', q.p .. 'home:' .. key)
    local home = got and cmsgpack.unpack(got)
    state.homes[key] = home and home[2] > q.now and home[1]
  end
  return state.homes[key]
end

-- This job was placed, and its session's next one in this claim sees it; true when that is where it was before.
function choice.settle(state, record, way)
  local key = record[F.affinity]
  if not key or not way.endpoint then
    return false
  end
  local stays = state.homes[key] == way.endpoint
  state.homes[key] = way.endpoint
  return stays
end

-- Remember where a job that was granted runs. The end that is written counts, by the queue's clock; by the engine's the
-- key goes a minute later.
function choice.remember(q, record, way)
  local ms = ctx.config(q)[C.affinity] or CONFIG[C.affinity]
  if record[F.affinity] and way.endpoint and ms > 0 then
    write.timed(q, 'home:' .. record[F.affinity], cmsgpack.pack({way.endpoint, q.now + ms * 1000}), ms + 60000)
  end
end
