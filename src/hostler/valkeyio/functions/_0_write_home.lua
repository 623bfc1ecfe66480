-- Whose data this is, and what begins when another server takes it over.

local home = {}
local HOME, LOOKED, CLUSTER = nil, 0, false
-- A value so long that the server keeps meta as a hash table and not as a list, which it would search for each field.
local WIDE = '-----------------------------------------------------------------'

-- Text of an integer; never write `..` on one that may have more than 14 digits.
local function int(n)
  return string.format('%.0f', n)
end

-- Who keeps the data: an id that changes whenever a server process starts or a replica is promoted. Looked up at
-- most every 50 ms, in which nobody is demoted, set back to other data, and promoted again.
local function id_of(now)
  if CLOCK == 'key' or not HOME or now < LOOKED or now - LOOKED > 50000 then
    if not HOME then
      CLUSTER = string.find(redis.call('INFO', 'cluster'), 'cluster_enabled:1', 1, true)
    end
    HOME, LOOKED = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'), now
  end
  return HOME
end

-- A queue begins, or goes on where it may lack what another server acknowledged last: all numbers go on above those
-- that may have been given. That is by the clock, so that it holds for a queue that was lost as a whole too.
local function take_over(q, id)
  local since = math.max(0, q.now - SEQ_BEGIN * 1000000)
  local turn = math.floor(since * LIVES_A_SECOND / 1000000)
  if q.m.born == 0 then
    q.m.born = q.now
  else
    q.m.heir, q.m.lane = q.now, q.m.lane + LANES_LOST
  end
  q.m.wide = WIDE
  q.m.run, q.m.life, q.m.epoch = id, math.max(q.m.life + 1, turn), math.max(q.m.epoch + 1, turn)
  if q.p ~= 'h:{reg}:' then
    local last = math.max(q.m.seq, SEQ_BASE)
    local timed = SEQ_BASE + math.floor(since * JOBS_A_SECOND / 1000000)
    q.m.seq = math.max(last, timed) + (timed - last < JOBS_LOST and JOBS_LOST or 0)
    write.zadd(q, 'lives', q.m.seq, int(last))
    write.zadd(q, 'epochs', q.m.epoch, int(q.m.epoch) .. ':' .. int(q.m.off))
  end
end

-- Before a call that changes something decides anything.
function home.open(q, now)
  local id = id_of(now)
  if CLUSTER then
    -- A key that is never there: while the slot is moved key by key, this refuses the call before it did anything.
    redis.call('EXISTS', q.p .. 'moving')
  end
  if id ~= q.m.run then
    take_over(q, id)
  end
end
