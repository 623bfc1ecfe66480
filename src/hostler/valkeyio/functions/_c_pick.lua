-- Choosing the jobs of one claim: tenant by tenant, job by job, as far as there is room. Only reads.

local PARKS, JUDGED, KEYED = 256, 16, 107 -- 107 is `k`, which ends the member of a job to be looked at

-- May this worker run this lane at all? A shunned one only while nobody else can.
local function barred(q, s, lane, row)
  if class.among(row[L.avoid], s.worker) then
    return true
  end
  return class.among(row[L.shun], s.worker) and class.may_serve(q, lane, row, row[L.shun])
end

-- A lane without room: when its head waited long enough, the pools it lacks are kept for it.
local function block(q, s, leaf, member, short)
  s.room.blocked[leaf.lane] = true
  s.left = s.left - 1
  if s.judged >= JUDGED then
    return
  end
  s.judged = s.judged + 1
  local record = rec.one(q, string.match(member, '^%d+'))
  if record and q.now - record[F.ready_at] >= s.reserve_after then
    room.reserve(s.room, short)
  end
end

-- Take the head of a lane, park it, or find the lane blocked. Returns true when the tenant was served.
local function try(q, s, t, leaf)
  local member = heads.head(q, t, leaf, s.limit)
  if not member then
    line.mend(q, t.tenant, leaf.lane)
    leaf.vt = nil
    return false
  end
  local row = lanes.row(q, leaf.lane)
  if not row or barred(q, s, leaf.lane, row) then
    s.room.blocked[leaf.lane] = true
    s.left = s.left - 1
    return false
  end
  local seq, keyed = member, nil
  if string.byte(member, -1) == KEYED then -- before the room: a job whose key is taken must not keep room for itself
    seq = string.sub(member, 1, -2)
    keyed = rec.one(q, seq)
    if keyed and keyed[F.ckey] and locks.busy(q, keyed[F.ckey]) then
      s.parked = s.parked + 1
      locks.park(q, seq, keyed)
      heads.advance(q, t, leaf, s.limit)
      return false
    end
    if keyed and apart.passes(q, s, keyed) then
      leaf.passed = true
      heads.advance(q, t, leaf, s.limit)
      return false
    end
  end
  local home = keyed and choice.home(q, s.room, keyed)
  local way, short = room.place(s.room, leaf.lane, row, s.class.offers[leaf.lane], home)
  if not way then
    block(q, s, leaf, member, short)
    return false
  end
  local homely = keyed and choice.settle(s.room, keyed, way)
  if keyed then
    locks.run(q, keyed, 1)
    s.beside = math.max(s.beside, apart.level(keyed))
  end
  room.take(q, s.room, way)
  s.picks[#s.picks + 1] = {seq = seq, member = member, lane = leaf.lane, tenant = t.tenant, way = way, homely = homely}
  heads.advance(q, t, leaf, s.limit)
  return true
end

-- Serve one tenant once; false when it has nothing (more) for this claim.
local function serve(q, s, t)
  while s.parked < PARKS do
    local leaf = heads.best(q, s.class, t, s.room.blocked, s.limit)
    if not leaf then
      if not t.covered then
        write.zrem(q, 'TN:' .. s.class.name, t.tenant)
      end
      return false
    end
    if try(q, s, t, leaf) then
      return true
    end
  end
  return false
end

-- `s` names the worker, its class, its room, the limit and the level of the worst that it holds (`beside`); the picks
-- are in `s.picks`, best first.
function pick.run(q, s)
  s.picks, s.parked, s.passed, s.judged, s.left = {}, 0, 0, 0, s.class.lanes
  local cfg, states, queue = ctx.config(q), {}, tenants.open(q, s.class.name, s.limit + 1)
  s.reserve_after = cfg[C.reserve_after]
  while #s.picks < s.limit and s.left > 0 and s.parked < PARKS do
    local best = tenants.pop(q, queue)
    if not best then
      break
    end
    local t = states[best[2]] or heads.open(best[2])
    states[best[2]] = t
    if serve(q, s, t) then
      q.m.V = math.max(q.m.V, best[1])
      local pass = q.m.V + math.floor(10080 / (cfg[C.weights][best[2]] or 1))
      q.passes[best[2]] = pass
      write.zadd(q, 'TN:' .. s.class.name, pass, best[2])
      tenants.put(queue, {pass, best[2]})
    end
  end
  heads.note(q, states)
end
