#!lua name=hostler1
-- hostler1: assembled from src/hostler/valkeyio/functions
local CLOCK = 'server'
local MOVES = {[101] = true, [102] = true, [223] = true, [535] = true, [636] = true, [731] = true, [732] = true, [834] = true, [912] = true, [942] = true, [1018] = true, [1028] = true, [1038] = true, [1048] = true, [1117] = true, [1127] = true, [1137] = true, [1147] = true, [1236] = true, [1362] = true, [1432] = true}
local STATES = {'scheduled', 'ready', 'running', 'waiting', 'succeeded', 'dead', 'cancelled', 'expired'}
local COUNTS = {'n_scheduled', 'n_ready', 'n_running', 'n_waiting', 'n_succeeded', 'n_dead', 'n_cancelled', 'n_expired'}
local META = {'born', 'last', 'arrival', 'off', 'seq', 'lane', 'cfg', 'paused', 'draining', 'V', 'due', 'exp', 'life', 'run', 'idle', 'bytes', 'n_ready', 'n_scheduled', 'n_running', 'n_waiting', 'n_succeeded', 't_submitted', 't_claimed', 't_succeeded', 'epoch', 'reason', 'heir', 'tick', 'turn', 'sweep', 'cursor', 'mark_at', 'mark_off', 'trim_to', 'apart', 'n_dead', 'n_cancelled', 'n_expired', 't_deduplicated', 't_dead', 't_cancelled', 't_expired', 't_replayed', 't_purged', 't_retried', 't_reaped', 't_rejected', 'roll', 'mustered', 'wide'}
local META_HOT = 24
local META_AT = {born = 1, last = 2, arrival = 3, off = 4, seq = 5, lane = 6, cfg = 7, paused = 8, draining = 9, V = 10, due = 11, exp = 12, life = 13, run = 14, idle = 15, bytes = 16, n_ready = 17, n_scheduled = 18, n_running = 19, n_waiting = 20, n_succeeded = 21, t_submitted = 22, t_claimed = 23, t_succeeded = 24, epoch = 25, reason = 26, heir = 27, tick = 28, turn = 29, sweep = 30, cursor = 31, mark_at = 32, mark_off = 33, trim_to = 34, apart = 35, n_dead = 36, n_cancelled = 37, n_expired = 38, t_deduplicated = 39, t_dead = 40, t_cancelled = 41, t_expired = 42, t_replayed = 43, t_purged = 44, t_retried = 45, t_reaped = 46, t_rejected = 47, roll = 48, mustered = 49, wide = 50}
local CONFIG = {10000000, 60000000, 30000000, 30000000, 1000000, 4294967296, 0, 10000, 1, 86400000000, 100000, 2592000000000, 100000, 3600000, 600000, {}, 1800000, 1}
local SEQ_BASE = 100000000000
local SEQ_BEGIN = 1767225600
local LIVES_A_SECOND = 8
local JOBS_A_SECOND = 1000
local JOBS_LOST = 10000
local LANES_LOST = 64
local FENCE_STEP = 1048576
local ATTEMPTS_KEPT = 200
local EVENTS_KEPT = 64
local EPOCHS_KEPT = 64
local PREVIEW_MS = 60000
local APART_SOON, APART_LATE = 1000000, 30000000
local PASSED_MOST = 64
local BLANK = {0, 0, 0, 0, false, 0, 0, 0, 0, 0, false, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, false, false, 0, 0, false, 0, false, 0, false, false}
-- Writes are collected while a call decides, and made at its end: one engine call per key or command.

local ctx, rec, events, line, locks = {}, {}, {}, {}, {}
local wake, lanes, class, room, pick, life = {}, {}, {}, {}, {}, {}
local write = {}

function write.begin(q)
  q.sets, q.hsets, q.late, q.drops, q.z, q.bumps, q.pushes, q.timed = {}, {}, {}, {}, {}, {}, {}, {}
  q.enters, q.leaves, q.passes, q.heads, q.claimable = {}, {}, {}, {}, {}
end

-- Store a value, in the one MSET.
function write.put(q, key, value)
  q.sets[#q.sets + 1] = q.p .. key
  q.sets[#q.sets + 1] = value
end

-- Set a field of a hash.
function write.hset(q, key, field, value)
  local words = q.hsets[key] or {}
  words[#words + 1] = field
  words[#words + 1] = value
  q.hsets[key] = words
end

-- The same, but only once values, scalars and events are written: for what points at them.
function write.late(q, key, field, value)
  local words = q.late[key] or {}
  words[#words + 1] = field
  words[#words + 1] = value
  q.late[key] = words
end

function write.drop(q, key)
  q.drops[#q.drops + 1] = q.p .. key
end

-- Store a value for some milliseconds.
function write.timed(q, key, value, ms)
  q.timed[#q.timed + 1] = {q.p .. key, value, ms}
end

-- Add to a list, of which no more than the last `most` are kept, if that is given.
function write.push(q, key, value, most)
  q.pushes[#q.pushes + 1] = {q.p .. key, value, most}
end

-- Set a member's score; the last word in a call wins.
function write.zadd(q, key, score, member)
  local members = q.z[key] or {}
  members[member] = score
  q.z[key] = members
end

function write.zrem(q, key, member)
  write.zadd(q, key, false, member)
end

-- Add to a field of a hash of counts; one that reaches 0 goes.
function write.bump(q, key, field, delta)
  local fields = q.bumps[key] or {}
  fields[field] = (fields[field] or 0) + delta
  q.bumps[key] = fields
end

function write.values(q)
  if #q.sets > 0 then
    redis.call('MSET', unpack(q.sets))
  end
  for key, words in pairs(q.hsets) do
    redis.call('HSET', q.p .. key, unpack(words))
  end
end

-- The collected writes, made.

local function flush_zset(key, members)
  local add, remove = {}, {}
  for member, score in pairs(members) do
    if score then
      add[#add + 1] = score
      add[#add + 1] = member
    else
      remove[#remove + 1] = member
    end
  end
  if #add > 0 then
    redis.call('ZADD', key, unpack(add))
  end
  if #remove > 0 then
    redis.call('ZREM', key, unpack(remove))
  end
end

local function flush_counts(key, deltas)
  local fields, drop = {}, {}
  for field, delta in pairs(deltas) do
    if delta ~= 0 then
      fields[#fields + 1] = field
    end
  end
  if #fields == 1 then
    if redis.call('HINCRBY', key, fields[1], deltas[fields[1]]) <= 0 then
      drop[1] = fields[1]
    end
  elseif #fields > 1 then
    local got, set = redis.call('HMGET', key, unpack(fields)), {}
    for i, field in ipairs(fields) do
      local value = (tonumber(got[i] or '0')) + deltas[field]
      if value > 0 then
        set[#set + 1] = field
        set[#set + 1] = value
      elseif got[i] then
        drop[#drop + 1] = field
      end
    end
    if #set > 0 then
      redis.call('HSET', key, unpack(set))
    end
  end
  if #drop > 0 then
    redis.call('HDEL', key, unpack(drop))
  end
end

-- What is dropped goes before the indexes that name it: after an error between, upkeep finds the rest there.
function write.rest(q)
  if #q.drops > 0 then
    redis.call('UNLINK', unpack(q.drops))
  end
  for key, words in pairs(q.late) do
    redis.call('HSET', q.p .. key, unpack(words))
  end
  for _, push in ipairs(q.pushes) do
    if redis.call('RPUSH', push[1], push[2]) > (push[3] or math.huge) then
      redis.call('LTRIM', push[1], -push[3], -1)
    end
  end
  for key, members in pairs(q.z) do
    flush_zset(q.p .. key, members)
  end
  for key, deltas in pairs(q.bumps) do
    flush_counts(q.p .. key, deltas)
  end
  for _, one in ipairs(q.timed) do
    redis.call('SET', one[1], one[2], 'PX', one[3])
  end
end

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

-- One call's context: time, the queue's scalars, configuration. Read once, written once.
-- `q.p` is the prefix of the queue's keys, `q.now` microseconds, `q.m` the fields of meta.

local CONFIGS = {}
local SILENCE = 5000000
local TEXT = {cfg = true, run = true, reason = true}

local function tail(argv, first)
  local rest = {}
  for i = first, #argv do
    rest[#rest + 1] = argv[i]
  end
  return rest
end

local function now_of(p)
  if CLOCK == 'key' then
    return tonumber(redis.call('GET', p .. 'clock') or '0')
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- The fields of meta, made numbers only when they are looked at; the rarer ones are read only then.
local function scalars_of(q)
  local hot, cold = redis.call('HMGET', q.key, unpack(META, 1, META_HOT)), nil
  return setmetatable({}, {__index = function(fields, name)
    local at = META_AT[name]
    if at > META_HOT and not cold then
      cold = redis.call('HMGET', q.key, unpack(META, META_HOT + 1))
    end
    local value = at > META_HOT and cold[at - META_HOT] or hot[at]
    if not TEXT[name] then
      value = value and tonumber(value) or 0
    end
    q.was[name] = value
    rawset(fields, name, value)
    return value
  end})
end

-- The prefix of a queue's keys.
function ctx.prefix(meta_key)
  return string.sub(meta_key, 1, -5)
end

-- The time and some fields of meta, for who mostly finds that there is nothing to do: opening costs several times as much.
function ctx.glance(meta_key, ...)
  local got = redis.call('HMGET', meta_key, 'last', ...)
  for i, value in ipairs(got) do
    got[i] = value and tonumber(value) or 0
  end
  return math.max(now_of(ctx.prefix(meta_key)), got[1]), unpack(got, 2)
end

-- Open a queue: time never steps back, whatever the machine's clock does.
function ctx.open(meta_key)
  local q = {p = ctx.prefix(meta_key), key = meta_key, was = {}, events = {}, records = {}, keys = {}}
  q.m = scalars_of(q)
  local now = now_of(q.p)
  q.now = math.max(now, q.m.last)
  local silent = q.m.last > 0 and q.now - q.m.last > SILENCE
  q.m.last = q.now
  write.begin(q)
  if ctx.writes then
    home.open(q, now)
    -- Nobody was heard, so whoever holds a lease may have tried in vain; what one alone failed to do is a loss.
    if silent and q.m.n_running > 0 then
      q.m.heir = q.now
    end
  end
  -- The life too: a slot of a cluster may move away from a server and come back.
  q.id = q.p .. int(q.m.born) .. int(q.m.life) .. (q.m.run or '')
  return q
end

-- Configuration, cached by the hash of its content (so that a restored or failed-over engine is never wrong).
function ctx.config(q)
  local hash = q.m.cfg
  if not hash then
    return CONFIG
  end
  local found = CONFIGS[hash]
  if not found then
    found = cmsgpack.unpack(redis.call('GET', q.p .. 'cfg'))
    CONFIGS[hash] = found
  end
  return found
end

-- The earliest of the due times known and this one.
function ctx.due(q, at)
  if q.m.due == 0 or at < q.m.due then
    q.m.due = at
  end
end

-- A job expires at this time, unless it ends before; a claim looks for expired jobs no earlier than that.
function ctx.expires(q, at, seq)
  write.zadd(q, 'expiry', at, seq)
  if q.m.exp == 0 or at < q.m.exp then
    q.m.exp = at
  end
end

-- The end of a call: everything that it decided is written, in an order that an error cannot make worse.

-- Write what the call decided. Nothing was written before, and nothing here can be refused: values first, then
-- the events, then the scalars, then the indexes, which `audit` can rebuild from the records. So no offset is
-- ever without its event; should the scalars fail, at least the offset is kept, lest it be given twice.
function ctx.commit(q)
  locks.admit(q)
  local line_plan = line.plan(q)
  rec.flush(q)
  write.values(q)
  events.flush(q)
  local kept, problem = pcall(ctx.scalars, q)
  if not kept then
    redis.call('HSET', q.key, 'off', int(q.m.off))
    error(problem, 0)
  end
  write.rest(q)
  line.flush(q, line_plan)
  wake.flush(q)
  write.begin(q)
end

-- Write the fields of meta that changed. That time went on is worth a write of its own once a second, and exact only
-- while leases are held: by it silence is told, after which they get a grace.
function ctx.scalars(q)
  local changed = {}
  for name, value in pairs(q.m) do
    if value ~= q.was[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = value
    end
  end
  if #changed == 2 and changed[1] == 'last' and q.m.last - q.was.last < 1000000 and q.m.n_running == 0 then
    return
  end
  if #changed > 0 then
    redis.call('HSET', q.key, unpack(changed))
  end
  for i = 1, #changed, 2 do
    q.was[changed[i]] = changed[i + 1]
  end
end

-- Events: collected by a call, written as one stream entry with consecutive offsets.

local function keep(record, offset)
  local offsets = record[24]
  offsets[#offsets + 1] = offset
  if #offsets > EVENTS_KEPT then
    table.remove(offsets, 1)
  end
end

-- Add one event; a job's own list of offsets grows with it. `data` is a table, packed bytes or nil.
function events.emit(q, verb, seq, record, data)
  local offset = q.m.off + 1
  q.m.off = offset
  local state, fence, worker = 0, 0, false
  if record then
    state, fence, worker = record[1], record[6], record[11]
    keep(record, offset)
  end
  q.events[#q.events + 1] = {verb, seq and tonumber(seq) - SEQ_BASE, state, fence, worker, data or false}
  return offset
end

-- Add an event that moves nothing, so it has no state; `worker` is who did it.
function events.say(q, verb, seq, record, worker, data)
  local offset = q.m.off + 1
  q.m.off = offset
  local fence = record and record[6] or 0
  q.events[#q.events + 1] = {verb, seq and tonumber(seq) - SEQ_BASE, 0, fence, worker or false, data or false}
  return offset
end

-- The same, and the job's timeline shows it.
function events.note(q, verb, seq, record, worker, data)
  local offset = events.say(q, verb, seq, record, worker, data)
  keep(record, offset)
  rec.touch(q, seq, record)
  return offset
end

-- The offset of the last event in the stream; nil when none is kept.
function events.last(q)
  local last = redis.call('XREVRANGE', q.p .. 'ev', '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '^%d+')) + #cmsgpack.unpack(last[2][2])[2] - 1
end

-- Scalars that are behind the stream (they were lost, or written by hand): count on from the stream.
local function catch_up(q)
  local ends = events.last(q)
  if ends and ends > q.was.off then
    redis.call('HSET', q.key, 'off', int(ends))
  end
end

-- Write them; a call whose offsets are taken fails, and the next one counts on above them.
function events.flush(q)
  local n = #q.events
  if n == 0 then
    return
  end
  local entry = cmsgpack.pack({q.now, q.events})
  local added, problem = pcall(function()
    redis.call('XADD', q.p .. 'ev', int(q.m.off - n + 1) .. '-0', 'e', entry)
  end)
  if not added then
    catch_up(q)
    error(problem, 0)
  end
  q.events = {}
end

-- Job records: read many at once, changed in place, written once.

-- A record from its packed form. Reading the elements as a stream, behind the array's head of three bytes, gives Lua
-- their number beforehand; a table that grows element by element takes twice as long.
local function opened(_, ...)
  return {...}
end

function rec.unpack(packed)
  return opened(cmsgpack.unpack_limit(packed, #BLANK, 3))
end

-- Read records into `q.records` and return them in order; `false` for a job that is not there.
function rec.many(q, seqs)
  local keys, missing = {}, {}
  for _, seq in ipairs(seqs) do
    if q.records[seq] == nil then
      q.records[seq] = false
      missing[#missing + 1] = seq
      keys[#keys + 1] = q.p .. 'j:' .. seq
    end
  end
  if #keys > 0 then
    local got = redis.call('MGET', unpack(keys))
    for i, seq in ipairs(missing) do
      q.records[seq] = got[i] and rec.unpack(got[i]) or false
    end
  end
  local found = {}
  for i = 1, #seqs do
    found[i] = q.records[seqs[i]]
  end
  return found
end

function rec.one(q, seq)
  return rec.many(q, {seq})[1]
end

-- A new record: nothing in it yet.
function rec.new()
  return {unpack(BLANK)}
end

-- Remember that a record changed.
function rec.touch(q, seq, record)
  q.records[seq] = record
  q.touched = q.touched or {}
  q.touched[seq] = true
end

-- Forget a record: the job is purged.
function rec.drop(q, seq)
  q.records[seq] = false
  if q.touched then
    q.touched[seq] = nil
  end
  for _, kind in ipairs({'j:', 'p:', 'a:', 'g:', 'c:', 's:', 'pv:'}) do
    write.drop(q, kind .. seq)
  end
end

-- Hand the changed records to the one MSET.
function rec.flush(q)
  q.packed = {}
  for seq in pairs(q.touched or {}) do
    q.packed[seq] = cmsgpack.pack(q.records[seq])
    write.put(q, 'j:' .. seq, q.packed[seq])
  end
  q.touched = nil
end

local function count(q, state, delta)
  if state > 0 then
    local name = COUNTS[state]
    q.m[name] = q.m[name] + delta
  end
end

-- Move a job as the life table allows: guard, counters, event. The indexes are the caller's business.
function rec.move(q, verb, seq, record, to, data)
  local from = record[1]
  if not MOVES[verb * 100 + from * 10 + to] then
    error('HOSTLER no move ' .. verb .. ' from ' .. from .. ' to ' .. to)
  end
  count(q, from, -1)
  count(q, to, 1)
  record[1] = to
  rec.touch(q, seq, record)
  return events.emit(q, verb, seq, record, data)
end

-- A purged job no longer counts anywhere.
function rec.uncount(q, record)
  count(q, record[1], -1)
end

-- The line: claimable jobs by lane and tenant, tenants by pass. Reads are in `plan`, writes in `flush`.

local function put(tree, tenant, lane, value)
  local lanes_of = tree[tenant] or {}
  tree[tenant] = lanes_of
  local list = lanes_of[lane] or {}
  lanes_of[lane] = list
  list[#list + 1] = value
end

-- How a job stands in its line: with a `k` where its record has to be read before it is placed.
function line.member(seq, record)
  return (record[5] or record[34] or record[8] > 0) and seq .. 'k' or seq
end

-- A ready job takes its place; one whose concurrency key is full is parked beside the line.
function line.enter(q, seq, record)
  local lane = record[2]
  write.bump(q, 'lr', lane, 1)
  if record[5] and not locks.enter(q, seq, record) then
    return
  end
  line.place(q, seq, record)
end

-- Put a job whose key has room into its line.
function line.place(q, seq, record)
  local lane = record[2]
  put(q.enters, record[3], lane, {record[4], line.member(seq, record)})
  q.claimable[lane] = (q.claimable[lane] or 0) + 1
end

-- A job leaves its place, whether it is claimed, cancelled or expires.
function line.leave(q, seq, record)
  local lane = record[2]
  write.bump(q, 'lr', lane, -1)
  if record[30] == 1 then
    record[30] = 0
    return locks.unpark(q, seq, record)
  end
  if record[5] then
    locks.leave(q, record)
  end
  line.remove(q, seq, record)
end

-- Take a job out of its line only.
function line.remove(q, seq, record)
  put(q.leaves, record[3], record[2], line.member(seq, record))
end

-- Take out a member that stands for no ready job.
function line.drop(q, tenant, lane, member)
  put(q.leaves, tenant, lane, member)
end

-- A lane that a tenant is listed for is empty: look again when writing.
function line.mend(q, tenant, lane)
  put(q.leaves, tenant, lane, '-')
end

-- Read what `flush` has to know: which lanes and tenants are new to the line.
function line.plan(q)
  local plan, newcomers = {heads = {}, fresh = {}, passes = {}}, {}
  for tenant, by_lane in pairs(q.enters) do
    local names = {}
    for lane in pairs(by_lane) do
      names[#names + 1] = lane
    end
    local scores, heads, fresh = redis.call('ZMSCORE', q.p .. 'tl:' .. tenant, unpack(names)), {}, false
    for i, lane in ipairs(names) do
      heads[lane] = scores[i] and tonumber(scores[i]) or false
      if not scores[i] then
        plan.fresh[lane] = plan.fresh[lane] or {}
        table.insert(plan.fresh[lane], tenant)
        fresh = true
      end
    end
    plan.heads[tenant] = heads
    if fresh then
      newcomers[#newcomers + 1] = tenant
    end
  end
  if #newcomers > 0 then
    line.plan_passes(q, plan, newcomers)
  end
  return plan
end

-- A tenant that comes back keeps the pass it had, but never gets ahead of the one served last.
function line.plan_passes(q, plan, tenants)
  plan.idle = {}
  local scores, absent = redis.call('ZMSCORE', q.p .. 'TN', unpack(tenants)), {}
  for i, tenant in ipairs(tenants) do
    if scores[i] then
      plan.passes[tenant] = q.passes[tenant] or tonumber(scores[i])
    else
      absent[#absent + 1] = tenant
    end
  end
  if #absent > 0 then
    local kept = redis.call('HMGET', q.p .. 'pass', unpack(absent))
    for i, tenant in ipairs(absent) do
      plan.passes[tenant] = math.max(tonumber(kept[i] or '0'), q.m.V)
      q.passes[tenant] = plan.passes[tenant]
      plan.idle[#plan.idle + 1] = kept[i] and tenant or nil
    end
  end
end

-- The line's writes: leaves, heads of lanes, tenants, and the classes of workers that see them.

-- Jobs enter from the top down, so that an error midway leaves at worst an entry that points at nothing, which the
-- next claim mends: first the tenant can be found, then its lanes, then the jobs. Jobs leave from the bottom up.

local function enter(q, plan, tenant, by_lane)
  local heads, leaves = {}, {}
  for lane, list in pairs(by_lane) do
    local words, lowest = {}, nil
    for _, item in ipairs(list) do
      words[#words + 1] = item[1]
      words[#words + 1] = item[2]
      lowest = math.min(lowest or item[1], item[1])
    end
    leaves[lane] = words
    local was = plan.heads[tenant][lane]
    if not was or lowest < was then
      heads[#heads + 1] = lowest
      heads[#heads + 1] = lane
    end
  end
  if #heads > 0 then
    redis.call('ZADD', q.p .. 'tl:' .. tenant, unpack(heads))
  end
  for lane, words in pairs(leaves) do
    redis.call('ZADD', q.p .. 'r:' .. lane .. ':' .. tenant, unpack(words))
  end
end

-- Jobs leave: their lanes get new heads, and a lane without any is no longer the tenant's. True when none is left.
local function leave(q, tenant, by_lane)
  local known, entered, add, gone = q.heads[tenant], q.enters[tenant], {}, {}
  for lane, members in pairs(by_lane) do
    local leaf = q.p .. 'r:' .. lane .. ':' .. tenant
    redis.call('ZREM', leaf, unpack(members))
    local vt = known and known[lane]
    if not vt or (entered and entered[lane]) then
      vt = redis.call('ZRANGE', leaf, 0, 0, 'WITHSCORES')[2]
    end
    if vt then
      add[#add + 1] = vt
      add[#add + 1] = lane
    else
      gone[#gone + 1] = lane
      redis.call('SREM', q.p .. 'lt:' .. lane, tenant)
    end
  end
  if #add > 0 then
    redis.call('ZADD', q.p .. 'tl:' .. tenant, unpack(add))
  end
  if #gone == 0 then
    return false
  end
  redis.call('ZREM', q.p .. 'tl:' .. tenant, unpack(gone))
  return #add == 0 and redis.call('EXISTS', q.p .. 'tl:' .. tenant) == 0
end

function line.flush(q, plan)
  local active, gone = {}, {}
  for tenant, pass in pairs(q.passes) do
    active[#active + 1] = pass
    active[#active + 1] = tenant
  end
  if #active > 0 then
    redis.call('ZADD', q.p .. 'TN', unpack(active))
  end
  if plan.idle and #plan.idle > 0 then
    redis.call('HDEL', q.p .. 'pass', unpack(plan.idle))
  end
  line.show(q, plan)
  for tenant, by_lane in pairs(q.enters) do
    enter(q, plan, tenant, by_lane)
  end
  for tenant, by_lane in pairs(q.leaves) do
    if leave(q, tenant, by_lane) then
      gone[#gone + 1] = tenant
    end
  end
  if #gone > 0 then
    line.retire(q, gone, {})
  end
end

-- The line's tenants: who becomes visible to which workers, who leaves.

-- New lanes of a tenant become visible to every class that covers them; bounds only need to be low enough.
function line.show(q, plan)
  for lane, tenants in pairs(plan.fresh) do
    redis.call('SADD', q.p .. 'lt:' .. lane, unpack(tenants))
    local words = {}
    for _, tenant in ipairs(tenants) do
      words[#words + 1] = plan.passes[tenant]
      words[#words + 1] = tenant
    end
    for _, class in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
      redis.call('ZADD', q.p .. 'TN:' .. class, 'NX', unpack(words))
    end
  end
end

-- Tenants without claimable jobs keep their pass aside while it is ahead of the queue's.
function line.retire(q, gone, idle)
  local scores = redis.call('ZMSCORE', q.p .. 'TN', unpack(gone))
  for i, tenant in ipairs(gone) do
    local pass = q.passes[tenant] or tonumber(scores[i] or '0')
    if pass > q.m.V then
      idle[#idle + 1] = tenant
      idle[#idle + 1] = pass
    end
  end
  redis.call('ZREM', q.p .. 'TN', unpack(gone))
  if #idle > 0 then
    redis.call('HSET', q.p .. 'pass', unpack(idle))
  end
end

-- Concurrency keys: at most `key_running` jobs of one key run at the same time, over all lanes.
-- Per key and lane only as many jobs stand in the line as could run; the rest is parked, so a claim never
-- walks over blocked work, and a job that nobody can serve does not hold the key's place in other lanes.

-- The state of one key, read once a call: running, in line per lane, parked per lane.
function locks.state(q, key)
  local state = q.keys[key]
  if not state then
    state = {}
    local got = redis.call('HGETALL', q.p .. 'k:' .. key)
    for i = 1, #got, 2 do
      state[got[i]] = tonumber(got[i + 1])
    end
    q.keys[key] = state
  end
  return state
end

local function add(q, key, field, delta)
  local state = locks.state(q, key)
  state[field] = (state[field] or 0) + delta
  write.bump(q, 'k:' .. key, field, delta)
end

local function full(q, key, lane)
  local state = locks.state(q, key)
  return (state.r or 0) + (state['q' .. lane] or 0) >= ctx.config(q)[9]
end

local function park(q, seq, record)
  record[30] = 1
  rec.touch(q, seq, record)
  add(q, record[5], 'p' .. record[2], 1)
  write.zadd(q, 'kw:' .. record[2] .. ':' .. record[5], record[4], seq)
end

-- A keyed job wants into its line; false when it was parked instead.
function locks.enter(q, seq, record)
  if full(q, record[5], record[2]) then
    park(q, seq, record)
    return false
  end
  add(q, record[5], 'q' .. record[2], 1)
  return true
end

-- A keyed job leaves its line.
function locks.leave(q, record)
  add(q, record[5], 'q' .. record[2], -1)
end

-- A job in the line whose key runs elsewhere by now is parked; nothing else about it changes.
function locks.park(q, seq, record)
  locks.leave(q, record)
  line.remove(q, seq, record)
  park(q, seq, record)
end

-- A parked job is taken away.
function locks.unpark(q, seq, record)
  add(q, record[5], 'p' .. record[2], -1)
  write.zrem(q, 'kw:' .. record[2] .. ':' .. record[5], seq)
end

-- A job that left its line runs, or no longer does.
function locks.run(q, record, delta)
  if record[5] then
    add(q, record[5], 'r', delta)
  end
end

function locks.busy(q, key)
  return (locks.state(q, key).r or 0) >= ctx.config(q)[9]
end

-- The best parked job of one key and lane, what this call itself parked and took away included.
local function best(q, key, lane)
  local name = 'kw:' .. lane .. ':' .. key
  local pending, found, vt = q.z[name] or {}, nil, nil
  for member, score in pairs(pending) do
    if score and (not vt or score < vt or (score == vt and member < found)) then
      found, vt = member, score
    end
  end
  local got = redis.call('ZRANGE', q.p .. name, 0, 128, 'WITHSCORES')
  for i = 1, #got, 2 do
    local score = tonumber(got[i + 1])
    if pending[got[i]] == nil and (not vt or score < vt or (score == vt and got[i] < found)) then
      return got[i]
    end
  end
  return found
end

-- Let parked jobs into their lines wherever a key has room again.
function locks.admit(q)
  for key, state in pairs(q.keys) do
    local parked = {}
    for field, count in pairs(state) do
      if count > 0 and string.sub(field, 1, 1) == 'p' then
        parked[#parked + 1] = tonumber(string.sub(field, 2))
      end
    end
    for _, lane in ipairs(parked) do
      while (state['p' .. lane] or 0) > 0 and not full(q, key, lane) do
        local seq = best(q, key, lane)
        local record = seq and rec.one(q, seq)
        if not record then
          break
        end
        locks.unpark(q, seq, record)
        record[30] = 0
        rec.touch(q, seq, record)
        add(q, key, 'q' .. lane, 1)
        line.place(q, seq, record)
      end
    end
  end
end

-- Lanes and worker classes: which lanes a class of workers covers, and through which of its offers.
-- A lane's number is never given twice and its row never changes, so rows may be cached for ever.

local ROWS = {}
local CLASSES = {}
local CACHED = 0

local function bound_caches()
  CACHED = CACHED + 1
  if CACHED > 20000 then
    ROWS, CLASSES, CACHED = {}, {}, 0
  end
end

-- Rows by lane number; a lane that was retired is absent.
function lanes.rows(q, numbers)
  local cache, missing, found = ROWS[q.id] or {}, {}, {}
  ROWS[q.id] = cache
  for _, lane in ipairs(numbers) do
    found[lane] = cache[lane]
    if not cache[lane] then
      missing[#missing + 1] = lane
    end
  end
  if #missing > 0 then
    local got = redis.call('HMGET', q.p .. 'lanes', unpack(missing))
    for i, lane in ipairs(missing) do
      if got[i] then
        bound_caches()
        cache[lane] = cmsgpack.unpack(got[i])
        found[lane] = cache[lane]
      end
    end
  end
  return found
end

-- The row of one lane, nil when it was retired.
function lanes.row(q, lane)
  local cache = ROWS[q.id]
  return cache and cache[lane] or lanes.rows(q, {lane})[lane]
end

-- Look up lanes given as key, packed row, key, packed row, ...
function lanes.look_up(q, given)
  local keys = {}
  for i = 1, #given, 2 do
    keys[#keys + 1] = given[i]
  end
  local got = #keys > 0 and redis.call('HMGET', q.p .. 'lanekeys', unpack(keys)) or {}
  local numbers = {}
  for i in ipairs(keys) do
    numbers[i] = got[i] and tonumber(got[i]) or nil
  end
  return {given = given, numbers = numbers}
end

-- The number of the i-th of these lanes; a new lane begins here. Nil when the queue has all it may have.
function lanes.number(q, found, i)
  if found.numbers[i] then
    return found.numbers[i]
  end
  q.lane_count = q.lane_count or redis.call('HLEN', q.p .. 'lc')
  if q.lane_count >= ctx.config(q)[8] then
    return nil
  end
  q.lane_count = q.lane_count + 1
  q.m.lane = q.m.lane + 1
  local row = cmsgpack.unpack(found.given[2 * i])
  row[5], row[6] = q.now, found.given[2 * i - 1]
  write.late(q, 'lanekeys', row[6], q.m.lane)
  write.hset(q, 'lanes', q.m.lane, cmsgpack.pack(row))
  found.numbers[i] = q.m.lane
  return q.m.lane
end

-- What a class covers, and up to which lane it was judged.
function class.open(q, name)
  local cache = CLASSES[q.id] or {}
  CLASSES[q.id] = cache
  local known = tonumber(redis.call('HGET', q.p .. 'classes', name) or '0')
  local found = cache[name]
  if not found or found.known ~= known then
    found = {name = name, known = known, offers = {}, lanes = 0}
    local got = redis.call('HGETALL', q.p .. 'cl:' .. name)
    for i = 1, #got, 2 do
      found.offers[tonumber(got[i])] = class.indexes(got[i + 1])
    end
    found.lanes = #got / 2
    bound_caches()
    cache[name] = found
  end
  return found
end

function class.indexes(text)
  local list = {}
  for word in string.gmatch(text, '%d+') do
    list[#list + 1] = tonumber(word)
  end
  return list
end

-- Packed rows of the next lanes that this class was not judged for: number, row, number, row, ...
function class.unjudged(q, found, most)
  local numbers, words = {}, {}
  local last = math.min(q.m.lane, found.known + most)
  for lane = found.known + 1, last do
    numbers[#numbers + 1] = lane
  end
  local got = redis.call('HMGET', q.p .. 'lanes', unpack(numbers))
  for i, lane in ipairs(numbers) do
    if got[i] then
      words[#words + 1] = lane
      words[#words + 1] = cmsgpack.unpack(got[i])[1]
    end
  end
  return {last, words}
end

-- A worker class learns which of the new lanes it covers.

-- Tenants with work in a lane become visible to the class; bounds only need to be low enough.
local function show_tenants(q, name, lane)
  local tenants = redis.call('SMEMBERS', q.p .. 'lt:' .. lane)
  for first = 1, #tenants, 1000 do
    local some = {unpack(tenants, first, math.min(first + 999, #tenants))}
    local scores, words = redis.call('ZMSCORE', q.p .. 'TN', unpack(some)), {}
    for i, tenant in ipairs(some) do
      if scores[i] then
        words[#words + 1] = scores[i]
        words[#words + 1] = tenant
      end
    end
    if #words > 0 then
      redis.call('ZADD', q.p .. 'TN:' .. name, 'NX', unpack(words))
    end
  end
end

-- Lanes that were marked unworkable are workable again, unless no worker of the class may run them.
local function clear_marks(q, covered)
  local marks, cleared = redis.call('HMGET', q.p .. 'un', unpack(covered)), {}
  for i, lane in ipairs(covered) do
    if marks[i] then
      cleared[#cleared + 1] = lane
    end
  end
  return cleared
end

-- `pairs` is lane, offer indexes as text, ...: the lanes up to `upto` that the class covers. Idempotent.
function class.cover(q, name, given, upto)
  local found = class.open(q, name)
  if upto <= found.known then
    return found
  end
  local covered = {}
  for i = 1, #given, 2 do
    covered[#covered + 1] = given[i]
  end
  if #covered > 0 then
    redis.call('HSET', q.p .. 'cl:' .. name, unpack(given))
    for i, lane in ipairs(covered) do
      redis.call('SADD', q.p .. 'cls:' .. lane, name)
      show_tenants(q, name, lane)
      found.lanes, found.offers[lane] = found.lanes + (found.offers[lane] and 0 or 1), class.indexes(given[2 * i])
    end
  end
  redis.call('HSET', q.p .. 'classes', name, upto)
  found.known = upto
  if #covered > 0 then
    class.workable(q, clear_marks(q, covered))
  end
  return found
end

-- Take back the mark of lanes that a live worker serves.
function class.workable(q, list)
  local rows = lanes.rows(q, list)
  for _, lane in ipairs(list) do
    local row = rows[lane]
    if row and class.served(q, lane, row) then
      events.say(q, 'workable', false, nil, false, {lane = row[6]})
      redis.call('HDEL', q.p .. 'un', lane)
    end
  end
end

-- Live workers by id, with their class, read once a call; `q.dead` collects those whose presence ran out.
function class.workers(q)
  if not q.workers then
    q.workers, q.dead = {}, {}
    local got = redis.call('HGETALL', q.p .. 'w')
    for i = 1, #got, 2 do
      local row = cmsgpack.unpack(got[i + 1])
      if row[1] > q.now then
        q.workers[got[i]] = row[2]
      else
        q.dead[#q.dead + 1] = got[i]
      end
    end
  end
  return q.workers
end

local function among(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then
      return true
    end
  end
  return false
end

class.among = among

-- A worker was seen: it counts as live for twelve seconds, written when it would not for the next eight. So an idle
-- one, which claims every four, is written with every second claim.
function class.present(q, worker, name)
  local packed = redis.call('HGET', q.p .. 'w', worker)
  local row = packed and cmsgpack.unpack(packed)
  if not row or row[2] ~= name or row[1] < q.now + 8000000 then
    redis.call('HSET', q.p .. 'w', worker, cmsgpack.pack({q.now + 12000000, name}))
    redis.call('HSETNX', q.p .. 'classes', name, 0)
  end
end

-- Who else may run a lane.

-- Whether a live worker may run this lane; `except` are workers that do not count.
function class.served(q, lane, row, except)
  local covers = {}
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    covers[name] = true
  end
  for worker, name in pairs(class.workers(q)) do
    if covers[name] and not class.among(row[3], worker) and not (except and class.among(except, worker)) then
      return true
    end
  end
  return false
end

-- Whether another live worker than these may run the lane, or has not looked at one that is new: an idle worker does
-- with its next claim, and until then a worker that the lane shuns does not take it.
function class.may_serve(q, lane, row, except)
  if class.served(q, lane, row, except) then
    return true
  elseif row[5] < q.now - 5000000 then
    return false
  end
  local known = {}
  for worker, name in pairs(class.workers(q)) do
    if not class.among(row[3], worker) and not class.among(except, worker) then
      known[name] = known[name] or tonumber(redis.call('HGET', q.p .. 'classes', name) or '0')
      if known[name] < tonumber(lane) then
        return true
      end
    end
  end
  return false
end

-- Jobs that lost workers run apart, so that poison is told from what only ran beside it (policy.suspicion).

local apart = {}

-- 0 when a job lost no worker, 1 when it did, 2 when the next one that it loses is its last.
function apart.level(record)
  if record[8] == 0 then
    return 0
  end
  return record[8] + 1 >= record[21] and 2 or 1
end

-- Whether a worker that holds a job of the level `s.beside`, or was just given one, has to pass this one over.
function apart.passes(q, s, record)
  local level = apart.level(record)
  if level == 0 or s.beside == 0 or s.passed >= PASSED_MOST then
    return false
  end
  local ends = record[13] + (math.max(level, s.beside) == 2 and APART_LATE or APART_SOON)
  if ends <= q.now then
    return false
  end
  s.passed = s.passed + 1
  if q.m.apart == 0 or ends < q.m.apart then
    q.m.apart = ends
  end
  return true
end

-- What was passed over may be taken by anybody from a moment on: then upkeep wakes those that found nothing else.
function apart.wake(q)
  if q.m.apart > 0 and q.m.apart <= q.now then
    q.m.apart = 0
    q.freed = math.max(q.freed or 0, q.m.n_ready)
  end
end

-- Choosing among endpoints that have room: within a bound where its session ran last, or where its model is;
-- else the least loaded. As `policy.balance`.
-- All amounts are whole thousandths.

local choice = {}
local BOUND = 1.25

-- The models that a lane names, nil when no offer says anything about its memory.
function choice.models(state, row)
  if state.memory == nil then
    state.memory = false
    for _, standing in ipairs(state.standings) do
      state.memory = state.memory or standing[2] or standing[3]
    end
  end
  if not state.memory then
    return nil
  end
  local needs = cmsgpack.unpack(row[1]).needs
  return needs and needs.models
end

local function within(models, list)
  local has = {}
  for _, model in ipairs(list or {}) do
    has[model] = true
  end
  for _, model in ipairs(models) do
    if not has[model] then
      return false
    end
  end
  return true
end

-- What a way {offer index, wants} is judged by; `slots` is the field of the endpoint's slots, if it has any.
-- A standing is {weight, models in memory, models that may be loaded, endpoint}, false for what is not said.
-- An endpoint among the workers that a lane excludes is never taken (`kept`), among those that it shuns last.
function choice.weigh(state, way, slots, models, row)
  local standing = state.standings[way[1] + 1]
  way.field, way.weight = slots, standing and standing[1] or 1000
  if not standing then
    return way
  end
  way.endpoint = standing[4]
  if models then
    way.warm = within(models, standing[2])
    way.cold = standing[2] and not way.warm
    way.kept = standing[3] and not way.warm and not within(models, standing[3])
  end
  if standing[4] and (#row[3] > 0 or #row[4] > 0) then
    way.kept = way.kept or class.among(row[3], standing[4])
    way.shunned = class.among(row[4], standing[4])
  end
  return way
end

local function load_of(state, way)
  if not way.field then
    return 0, 1000
  end
  return state.used[way.field], math.max(1, state.totals[way.field])
end

-- Without those that are shunned, unless nothing else is left.
local function spared(ways)
  local rest = {}
  for _, way in ipairs(ways) do
    if not way.shunned then
      rest[#rest + 1] = way
    end
  end
  return #rest > 0 and rest or ways
end

-- How much an endpoint is preferred whatever it costs, while that leaves it within its bound.
local function rank_of(way, home, most)
  local rank = home and way.endpoint == home and not way.cold and 2 or way.warm and 1 or 0
  return rank > 0 and way.out + 1000 <= most and rank or 0
end

-- The best of the ways that have room; there is at least one.
function choice.best(state, fit, home)
  local ways = #fit == 1 and fit or spared(fit)
  if #ways == 1 then
    return ways[1]
  end
  local total, all = 1000, 0
  for _, way in ipairs(ways) do
    way.out, way.slots = load_of(state, way)
    total, all = total + way.out, all + way.slots
  end
  local best, cheapest, best_rank
  for _, way in ipairs(ways) do
    local rank = rank_of(way, home, 1000 * math.ceil(BOUND * total * way.slots / all / 1000))
    local cost = (way.out + 1000) * way.weight / way.slots
    if not best or rank > best_rank or (rank == best_rank and cost < cheapest) then
      best, cheapest, best_rank = way, cost, rank
    end
  end
  return best
end

-- Where the jobs of a session ran last, so that the next one goes there: read when it is placed, written when it is leased.

-- Where the last job of this one's session ran, as far as that is still remembered.
function choice.home(q, state, record)
  local key = record[34]
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
  local key = record[34]
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
  local ms = ctx.config(q)[17] or CONFIG[17]
  if record[34] and way.endpoint and ms > 0 then
    write.timed(q, 'home:' .. record[34], cmsgpack.pack({way.endpoint, q.now + ms * 1000}), ms + 60000)
  end
end

-- Amounts: what a claim may take from the worker's own pools and from those of the offer that fits.
-- All amounts are whole thousandths, so that adding and taking away never drifts.

-- `given` is {own pools, pools of offer 0, of offer 1, ...}, each a list of {name, pool id, total, free or -1}.
function room.open(q, given, standings)
  local fields, seen, state = {}, {}, {free = {}, used = {}, reserved = {}, sets = {}, plans = {}, blocked = {}}
  state.standings, state.totals, state.homes = standings, {}, {}
  for n, pools in ipairs(given) do
    local set = {}
    for _, pool in ipairs(pools) do
      local field = pool[2] .. '|' .. pool[1]
      set[pool[1]] = field
      if not seen[field] then
        seen[field] = pool
        fields[#fields + 1] = field
      elseif pool[4] >= 0 and (seen[field][4] < 0 or pool[4] < seen[field][4]) then
        seen[field] = pool
      end
    end
    state.sets[n] = set
  end
  local used = #fields > 0 and redis.call('HMGET', q.p .. 'use', unpack(fields)) or {}
  for i, field in ipairs(fields) do
    local pool = seen[field]
    state.used[field], state.totals[field] = tonumber(used[i] or '0'), pool[3]
    local free = pool[3] - state.used[field]
    state.free[field] = pool[4] >= 0 and math.min(free, pool[4]) or free
  end
  return state
end

-- For each fitting offer of a lane: its index, what would be taken (field, thousandths, ...), and how it is weighed.
local function plan(state, row, offers)
  local ways, models = {}, choice.models(state, row)
  for _, index in ipairs(offers) do
    local own, theirs, wants = state.sets[1], state.sets[index + 2] or {}, {}
    for i = 1, #row[2], 2 do
      local name, amount = row[2][i], row[2][i + 1]
      if own[name] then
        wants[#wants + 1] = own[name]
        wants[#wants + 1] = amount
      end
      if theirs[name] and theirs[name] ~= own[name] then
        wants[#wants + 1] = theirs[name]
        wants[#wants + 1] = amount
      end
    end
    ways[#ways + 1] = choice.weigh(state, {index, wants}, theirs.slots, models, row)
  end
  return ways
end

-- The best way in which a job of this lane has room now; else nil and the fields that are short.
-- `home` is where its session ran last, if that is known.
function room.place(state, lane, row, offers, home)
  local ways = state.plans[lane]
  if not ways then
    ways = plan(state, row, offers)
    state.plans[lane] = ways
  end
  local short, fit
  for _, way in ipairs(ways) do
    local wants, fits = way[2], not way.kept
    for i = 1, #wants, 2 do
      if state.reserved[wants[i]] or state.free[wants[i]] < wants[i + 1] then
        fits, short = false, short or {}
        short[#short + 1] = wants[i]
      end
    end
    if fits then
      fit = fit or {}
      fit[#fit + 1] = way
    end
  end
  return fit and choice.best(state, fit, home), short or {}
end

-- Take what a way says.
function room.take(q, state, way)
  for i = 1, #way[2], 2 do
    local field, amount = way[2][i], way[2][i + 1]
    state.free[field], state.used[field] = state.free[field] - amount, state.used[field] + amount
    write.bump(q, 'use', field, amount)
  end
end

-- Keep these pools for a big job that waited long enough: nothing behind it takes from them in this claim.
function room.reserve(state, short)
  for _, field in ipairs(short) do
    state.reserved[field] = true
  end
end

-- Give back what a job took.
function room.give(q, record)
  local taken = record[25]
  for i = 1, #(taken or {}), 2 do
    write.bump(q, 'use', taken[i], -taken[i + 1])
    if string.sub(taken[i], 1, #record[11] + 1) ~= record[11] .. '|' then
      q.freed = (q.freed or 0) + 1
    end
  end
  record[25] = false
end

-- Choosing, first half: which tenant is next for a class of workers. Read lazily, least pass first.
-- `TN:<class>` holds lower bounds, `TN` the exact passes; a bound is raised when it is found too low, and an
-- entry without work is dropped, so that tenants with nothing for this class cost a claim nothing twice.

local tenants = {}

function tenants.open(q, name, most)
  return {key = 'TN:' .. name, next = 0, size = most, list = {}, done = false, last = {-1, ''}}
end

local function before(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end

-- Insert into the list, which is sorted worst first so that the best is popped from its end.
function tenants.put(s, item)
  local low, high = 1, #s.list + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if before(item, s.list[middle]) then
      low = middle + 1
    else
      high = middle
    end
  end
  table.insert(s.list, low, item)
end

local function fetch(q, s)
  local got, names, bounds = redis.call('ZRANGE', q.p .. s.key, s.next, s.next + s.size - 1, 'WITHSCORES'), {}, {}
  for i = 1, #got, 2 do
    names[#names + 1] = got[i]
    bounds[#bounds + 1] = tonumber(got[i + 1])
  end
  s.next = s.next + #names
  s.done = #names < s.size
  s.size = math.min(s.size * 4, 1000)
  if #names == 0 then
    return
  end
  s.last = {bounds[#bounds], names[#names]}
  local exact = redis.call('ZMSCORE', q.p .. 'TN', unpack(names))
  for i, name in ipairs(names) do
    local pass = exact[i] and tonumber(exact[i])
    if not pass then
      write.zrem(q, s.key, name)
    else
      local fair = math.max(pass, q.m.V)
      if fair > bounds[i] then
        write.zadd(q, s.key, fair, name)
      end
      if fair > pass then
        write.zadd(q, 'TN', fair, name)
      end
      tenants.put(s, {fair, name})
    end
  end
end

-- The tenant with the least pass that has not been returned or was put back; nil when there is none.
function tenants.pop(q, s)
  while true do
    local best = s.list[#s.list]
    if s.done or (best and not before(s.last, best)) then
      return table.remove(s.list)
    end
    fetch(q, s)
  end
end

-- Choosing, second half: which job of a tenant is next, over all lanes that the class covers.
-- Mostly one lane and one job of a tenant is wanted, so reads begin small and grow; a leaf is one lane of a tenant.

local heads = {}

function heads.open(tenant)
  return {tenant = tenant, next = 0, size = 2, lanes = {}, done = false, floor = -1, covered = false}
end

local function load(q, c, t, blocked)
  local got = redis.call('ZRANGE', q.p .. 'tl:' .. t.tenant, t.next, t.next + t.size - 1, 'WITHSCORES')
  local n = #got / 2
  t.next, t.done = t.next + n, n < t.size
  t.size = math.min(t.size * 4, 1000)
  for i = 1, #got, 2 do
    local lane = tonumber(got[i])
    t.floor = tonumber(got[i + 1])
    if c.offers[lane] then
      t.covered = true
      if not blocked[lane] then
        t.lanes[#t.lanes + 1] = {lane = lane, vt = t.floor}
      end
    end
  end
end

-- The head member of a leaf, read in growing steps; false when the lane holds no more. `items` are member, score, ...
function heads.head(q, t, leaf, most)
  local items = leaf.items
  if not items or (leaf.at > #items and not leaf.done) then
    local from, peek = leaf.from or 0, items and math.min(most + 1, 100) or 2
    items = redis.call('ZRANGE', q.p .. 'r:' .. leaf.lane .. ':' .. t.tenant, from, from + peek - 1, 'WITHSCORES')
    leaf.items, leaf.at, leaf.from, leaf.done = items, 1, from + #items / 2, #items / 2 < peek
  end
  local member = items[leaf.at]
  leaf.vt = member and tonumber(items[leaf.at + 1])
  return member
end

-- Go on behind the head.
function heads.advance(q, t, leaf, most)
  leaf.at = leaf.at + 2
  leaf.used = true
  return heads.head(q, t, leaf, most)
end

-- The lane whose head came first; equal arrivals go by job number, which counts up.
function heads.best(q, c, t, blocked, most)
  local list = t.lanes
  while true do
    local best
    for i = #list, 1, -1 do
      local leaf = list[i]
      if blocked[leaf.lane] or not leaf.vt then
        table.remove(list, i)
      elseif not best or leaf.vt < best.vt then
        best = leaf
      elseif leaf.vt == best.vt and (heads.head(q, t, leaf, most) or '~') < (heads.head(q, t, best, most) or '~') then
        best = leaf
      end
    end
    if t.done or (best and best.vt < t.floor) then
      return best
    end
    load(q, c, t, blocked)
  end
end

-- Tell the line what is at the head of each touched lane, so that it need not be read again.
function heads.note(q, states)
  for tenant, t in pairs(states) do
    local known = {}
    for _, leaf in ipairs(t.lanes) do
      if leaf.used and leaf.vt and not leaf.passed then
        known[leaf.lane] = leaf.vt
      end
    end
    q.heads[tenant] = known
  end
end

-- Choosing the jobs of one claim: tenant by tenant, job by job, as far as there is room. Only reads.

local PARKS, JUDGED, KEYED = 256, 16, 107 -- 107 is `k`, which ends the member of a job to be looked at

-- May this worker run this lane at all? A shunned one only while nobody else can.
local function barred(q, s, lane, row)
  if class.among(row[3], s.worker) then
    return true
  end
  return class.among(row[4], s.worker) and class.may_serve(q, lane, row, row[4])
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
  if record and q.now - record[13] >= s.reserve_after then
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
    if keyed and keyed[5] and locks.busy(q, keyed[5]) then
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
  s.reserve_after = cfg[3]
  while #s.picks < s.limit and s.left > 0 and s.parked < PARKS do
    local best = tenants.pop(q, queue)
    if not best then
      break
    end
    local t = states[best[2]] or heads.open(best[2])
    states[best[2]] = t
    if serve(q, s, t) then
      q.m.V = math.max(q.m.V, best[1])
      local pass = q.m.V + math.floor(10080 / (cfg[16][best[2]] or 1))
      q.passes[best[2]] = pass
      write.zadd(q, 'TN:' .. s.class.name, pass, best[2])
      tenants.put(queue, {pass, best[2]})
    end
  end
  heads.note(q, states)
end

-- Wake-ups: as many idle workers as jobs became claimable for them hear of it; nobody else does.

local function publish(q, worker)
  redis.call('PUBLISH', q.p .. 'w:' .. worker, '1')
end

-- Classes that cover a lane, and those that were not judged for it yet.
local function classes_for(q, lane)
  local names, listed = redis.call('SMEMBERS', q.p .. 'cls:' .. lane), {}
  for _, name in ipairs(names) do
    listed[name] = true
  end
  q.known = q.known or redis.call('HGETALL', q.p .. 'classes')
  for i = 1, #q.known, 2 do
    if tonumber(q.known[i + 1]) < lane and not listed[q.known[i]] then
      names[#names + 1] = q.known[i]
    end
  end
  return names
end

-- Pop up to `n` idle workers of a class that `avoid` does not name; return how many were woken.
local function pop(q, name, n, avoid)
  local woken, back = 0, {}
  local popped = redis.call('SPOP', q.p .. 'idle:' .. name, n + #avoid)
  for _, worker in ipairs(popped) do
    if woken < n and not class.among(avoid, worker) then
      publish(q, worker)
      woken = woken + 1
    else
      back[#back + 1] = worker
    end
  end
  if #back > 0 then
    redis.call('SADD', q.p .. 'idle:' .. name, unpack(back))
  end
  return woken
end

local function wake_lane(q, lane, n)
  local row = lanes.row(q, lane)
  local avoid, woken = row and row[3] or {}, 0
  for _, name in ipairs(classes_for(q, lane)) do
    if woken < n then
      woken = woken + pop(q, name, n - woken, avoid)
    end
  end
  return woken
end

-- Any idle worker may be able to use what was given back.
function wake.anyone(q, n)
  local woken = 0
  for _, name in ipairs(redis.call('HKEYS', q.p .. 'classes')) do
    if woken < n then
      woken = woken + pop(q, name, n - woken, {})
    end
  end
  return woken
end

function wake.flush(q)
  if q.m.idle <= 0 then
    return
  end
  local woken = 0
  for lane, n in pairs(q.claimable) do
    woken = woken + wake_lane(q, lane, n)
  end
  if (q.freed or 0) > 0 and q.m.n_ready > 0 then
    woken = woken + wake.anyone(q, q.freed)
  end
  q.freed = 0
  wake.count(q, -woken)
end

-- Keep the number of idle workers; it only decides whether to look, so `tick` may set it right.
function wake.count(q, delta)
  if delta ~= 0 then
    q.m.idle = redis.call('HINCRBY', q.key, 'idle', delta)
    q.was.idle = q.m.idle
  end
end

-- A worker found nothing; it wants to hear when that changes.
function wake.idle(q, worker, name)
  wake.count(q, redis.call('SADD', q.p .. 'idle:' .. name, worker))
end

-- A worker found work: it is not idle.
function wake.busy(q, worker, name)
  if q.m.idle > 0 then
    wake.count(q, -redis.call('SREM', q.p .. 'idle:' .. name, worker))
  end
end

-- What every verb that moves a job shares: leaving an index, entering one, ending an attempt, ending a life.

-- Take a job out of the index of its present state, and give back what it holds.
function life.leave(q, seq, record)
  local state = record[1]
  if state == 2 then
    line.leave(q, seq, record)
  elseif state == 1 then
    write.zrem(q, 'delayed', seq)
  elseif state == 4 then
    write.zrem(q, 'waiting', seq)
  elseif state == 6 then
    write.zrem(q, 'dead', seq)
  elseif state == 3 then
    write.zrem(q, 'leases', seq)
    write.drop(q, 'pv:' .. seq)
    if record[19] > 0 then
      write.zrem(q, 'cancels', seq)
    end
    room.give(q, record)
    locks.run(q, record, -1)
  end
end

-- Move a job to its place in the line. Its former index must have been left.
function life.ready(q, verb, seq, record, data)
  rec.move(q, verb, seq, record, 2, data)
  record[13], record[26], record[11] = q.now, false, false
  line.enter(q, seq, record)
end

-- Let a job wait for its time.
function life.schedule(q, verb, seq, record, due, data)
  rec.move(q, verb, seq, record, 1, data)
  record[13], record[11] = due, false
  write.zadd(q, 'delayed', due, seq)
  ctx.due(q, due)
end

-- Let a job wait for somebody, or until `due` (0: for ever).
function life.hold(q, seq, record, reason, due, data)
  rec.move(q, 8, seq, record, 4, data)
  record[26], record[11], record[13] = reason, false, due
  write.zadd(q, 'waiting', due > 0 and due or 'inf', seq)
  if due > 0 then
    ctx.due(q, due)
  end
end

-- Add the running attempt to the job's history; `failure` is packed or false, `remote` the service's id.
function life.attempt(q, seq, record, outcome, failure, counted, endpoint, remote)
  if counted then
    record[7] = record[7] + 1
  end
  write.push(q, 'a:' .. seq, cmsgpack.pack({
    record[6] % FENCE_STEP, record[10], record[11], endpoint or false, record[14], q.now,
    outcome, failure or false, counted, remote or false,
  }), ATTEMPTS_KEPT)
end

-- End a job's life: its former index is left, and what it counted for is given back. Its last worker stays named.
function life.finish(q, verb, seq, record, to, data)
  life.leave(q, seq, record)
  rec.move(q, verb, seq, record, to, data)
  record[15], record[26], record[19] = q.now, false, 0
  write.zadd(q, to == 6 and 'dead' or 'done', q.now, seq)
  life.count(q, record, -1)
  if record[16] > 0 or record[17] > 0 then
    write.zrem(q, 'expiry', seq)
  end
  local total = 't_' .. STATES[to]
  q.m[total] = q.m[total] + 1
end

-- Expire a job whose deadline or longest wait has passed.
function life.expire(q, seq, record)
  if record[1] == 3 then
    local progress = life.remotes(q, {seq})[seq]
    life.attempt(q, seq, record, 'expire', false, false, progress[3], progress[2])
  end
  life.finish(q, 10, seq, record, 8)
end

-- Parts of every life: what a job counts for, its lane, its remote work, its end.

-- A job begins (1) or stops (-1) to count against the limits of its queue, tenant and lane.
function life.count(q, record, delta)
  q.m.bytes = q.m.bytes + delta * record[18]
  write.bump(q, 'td', record[3], delta)
  write.bump(q, 'lc', record[2], delta)
end

-- Move a job to another lane while it is in no line.
function life.relane(q, record, lane)
  if lane and lane ~= record[2] then
    write.bump(q, 'lc', record[2], -1)
    write.bump(q, 'lc', lane, 1)
    record[2] = lane
  end
end

-- The services' ids of the work of these jobs, by job; read in one call.
function life.remotes(q, seqs)
  local keys, found = {}, {}
  for i, seq in ipairs(seqs) do
    keys[i] = q.p .. 'g:' .. seq
  end
  if #keys > 0 then
    local got = redis.call('MGET', unpack(keys))
    for i, seq in ipairs(seqs) do
      found[seq] = got[i] and cmsgpack.unpack(got[i]) or {false, false, false, 0, 0}
    end
  end
  return found
end

-- When a job expires: its deadline or the end of its queue wait, whichever is first; nil when never.
function life.ends(record)
  local deadline, wait = record[16], record[17]
  if deadline > 0 and wait > 0 then
    return math.min(deadline, wait)
  end
  return deadline > 0 and deadline or (wait > 0 and wait or nil)
end

-- Time's part: jobs that are due become ready, lost leases go back to the line. Slices, never everything.

local due = {}

function due.take(q, key, most)
  return redis.call('ZRANGE', q.p .. key, '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
end

function due.next_of(q, key, skip)
  local got = redis.call('ZRANGE', q.p .. key, skip, skip, 'WITHSCORES')
  return got[2] and got[2] ~= 'inf' and tonumber(got[2]) or nil
end

-- Wake jobs that are due, at most `most`; returns how many.
function due.promote(q, most)
  if q.m.due == 0 or q.m.due > q.now then
    return 0
  end
  local delayed = due.take(q, 'delayed', most)
  local waiting = due.take(q, 'waiting', most - #delayed)
  q.m.due = 0
  for key, n in pairs({delayed = #delayed, waiting = #waiting}) do
    local at = due.next_of(q, key, n)
    if at then
      ctx.due(q, at)
    end
  end
  local seqs = {}
  for _, list in ipairs({delayed, waiting}) do
    for _, seq in ipairs(list) do
      seqs[#seqs + 1] = seq
    end
  end
  for i, record in ipairs(rec.many(q, seqs)) do
    local state = record and record[1]
    if state == 1 or state == 4 then
      life.leave(q, seqs[i], record)
      life.ready(q, 9, seqs[i], record)
    else
      write.zrem(q, i <= #delayed and 'delayed' or 'waiting', seqs[i])
    end
  end
  return #seqs
end

-- Microseconds until a job may be due, -1 when none waits.
function due.left(q)
  return q.m.due == 0 and -1 or math.max(0, q.m.due - q.now)
end

local function lost_failure(record)
  return cmsgpack.pack({class = 'lost', message = 'the lease of worker ' .. (record[11] or '?') .. ' ran out'})
end

-- Take a lease away that ran out. `charged` is false when it ran out in the grace after a restart.
local function lose(q, seq, record, charged, progress)
  local worker = record[11]
  if charged then
    record[8] = record[8] + 1
    record[33] = record[33] or {}
    table.insert(record[33], worker)
  end
  q.m.t_reaped = q.m.t_reaped + 1
  local cancelled, failure = record[19] > 0, lost_failure(record)
  life.attempt(
    q, seq, record, cancelled and 'cancel' or 'reap', failure, false, progress[3], progress[2]
  )
  if cancelled then
    life.finish(q, 11, seq, record, 7)
  elseif record[8] >= record[21] then
    life.finish(q, 12, seq, record, 6, {class = 'poison', workers = record[33]})
  else
    life.leave(q, seq, record)
    life.ready(q, 14, seq, record, {class = 'lost', charged = charged})
  end
end

-- Reap leases that ran out, at most `most`; returns how many.
function due.reap(q, most)
  local seqs = due.take(q, 'leases', most)
  if #seqs == 0 then
    return 0
  end
  local ends = redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs))
  local grace = redis.call('ZMSCORE', q.p .. 'grace', unpack(seqs))
  local progress = life.remotes(q, seqs)
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and record[1] == 3 then
      lose(q, seqs[i], record, grace[i] ~= ends[i], progress[seqs[i]])
    else
      write.zrem(q, 'leases', seqs[i])
    end
  end
  return #seqs
end

-- Parts of submit: what was asked before, what has room, and the new job itself.

local submit = {}

-- Answers already given, by place in the list of operations.
function submit.replays(q, operations)
  local keys, places, found = {}, {}, {}
  for n = 1, #operations, 2 do
    if operations[n] ~= '' then
      keys[#keys + 1] = q.p .. 'op:' .. operations[n]
      places[#places + 1] = n
    end
  end
  if #keys > 0 then
    local got = redis.call('MGET', unpack(keys))
    for i, place in ipairs(places) do
      found[place] = got[i] and cmsgpack.unpack(got[i]) or nil
    end
  end
  return found
end

-- Idempotency keys seen before, by tenant and key: {job, hash of the body}.
function submit.known(q, jobs)
  local keys, found = {}, {}
  for _, job in ipairs(jobs) do
    if job[13] then
      keys[#keys + 1] = job[2] .. ':' .. job[13]
    end
  end
  if #keys > 0 then
    local words = {}
    for i, key in ipairs(keys) do
      words[i] = q.p .. 'i:' .. key
    end
    local got = redis.call('MGET', unpack(words))
    for i, key in ipairs(keys) do
      found[key] = got[i] and cmsgpack.unpack(got[i]) or nil
    end
  end
  return found
end

-- Jobs that have not ended per tenant, when that is limited.
function submit.depths(q, cfg, jobs)
  local names, found = {}, {}
  if cfg[7] == 0 then
    return found
  end
  for _, job in ipairs(jobs) do
    if not found[job[2]] then
      found[job[2]] = 0
      names[#names + 1] = job[2]
    end
  end
  local got = redis.call('HMGET', q.p .. 'td', unpack(names))
  for i, name in ipairs(names) do
    found[name] = tonumber(got[i] or '0')
  end
  return found
end

-- Why a job is not stored: a code and the job that was; nil when it may be.
function submit.judge(q, cfg, job, known, depths, spread)
  local seen = job[13] and known[job[2] .. ':' .. job[13]]
  if seen then
    if seen[2] ~= job[14] then
      return 3, seen[1]
    end
    q.m.t_deduplicated = q.m.t_deduplicated + 1
    return 2, seen[1]
  end
  local depth = q.m.n_ready + q.m.n_scheduled + q.m.n_running + q.m.n_waiting
  local mine = cfg[18] or 1
  if mine == 0 or (job[4] or job[13]) and spread ~= mine then
    return 10
  elseif q.m.draining == 1 then
    return 8
  elseif cfg[5] > 0 and depth >= cfg[5] then
    return 4
  elseif cfg[6] > 0 and q.m.bytes + job[12] > cfg[6] then
    return 5
  elseif cfg[7] > 0 and depths[job[2]] >= cfg[7] then
    return 6
  end
  depths[job[2]] = (depths[job[2]] or 0) + 1
  return nil
end

-- Store one job: scheduled or ready, with its place by effective arrival.
function submit.store(q, cfg, job, lane, envelope, known)
  q.m.seq = q.m.seq + 1
  q.m.arrival = math.max(q.m.arrival + 1, q.now)
  local seq, start = int(q.m.seq), math.max(q.now + job[5], job[6])
  local record = rec.new()
  record[2], record[3], record[5], record[23] = lane, job[2], job[4], job[3]
  record[4] = q.m.arrival - job[3] * cfg[2]
  record[10], record[18], record[24] = 1, job[12], {}
  record[12], record[13], record[16] = q.now, start, job[7]
  record[17] = job[8] >= 0 and start + job[8] or 0
  record[20], record[21], record[22] = job[9], job[10], job[11]
  record[34] = job[15]
  write.put(q, 'p:' .. seq, envelope)
  local facts = {tenant = job[2], priority = job[3]}
  if start > q.now then
    life.schedule(q, 1, seq, record, start, facts)
  else
    life.ready(q, 1, seq, record, facts)
  end
  life.count(q, record, 1)
  if record[16] > 0 or record[17] > 0 then
    ctx.expires(q, life.ends(record), seq)
  end
  if job[13] and cfg[14] > 0 then
    known[job[2] .. ':' .. job[13]] = {seq, job[14]}
    write.timed(q, 'i:' .. job[2] .. ':' .. job[13], cmsgpack.pack({seq, job[14]}), cfg[14])
  end
  q.m.t_submitted = q.m.t_submitted + 1
  return seq
end

-- Parts of claim: granting leases, remembering them, and what the worker is told.

local claim = {}

-- A pick turned out to be no ready job (an index that an error left behind) or to have expired: undo it.
local function refuse(q, one, record)
  for i = 1, #one.way[2], 2 do
    write.bump(q, 'use', one.way[2][i], -one.way[2][i + 1])
  end
  if record and one.member ~= one.seq then
    locks.run(q, record, -1)
  end
  if record and record[1] == 2 then
    life.expire(q, one.seq, record)
  else
    line.drop(q, one.tenant, one.lane, one.member)
  end
end

-- One claim more; above every fence that may have been given in an earlier life of the queue.
local function next_fence(q, fence)
  return math.max(fence, q.m.life * FENCE_STEP + fence % FENCE_STEP) + 1
end

local function grant(q, one, record, worker, lease)
  line.leave(q, one.seq, record)
  record[6] = next_fence(q, record[6])
  record[11], record[14], record[32] = worker, q.now, lease
  record[31] = one.way[1]
  record[25] = #one.way[2] > 0 and one.way[2] or false
  if record[17] > 0 then
    record[17] = 0
    write.zadd(q, 'expiry', record[16] > 0 and record[16], one.seq)
  end
  choice.remember(q, record, one.way)
  rec.move(q, 2, one.seq, record, 3, one.homely and {affinity = true} or nil)
  write.zadd(q, 'leases', q.now + lease, one.seq)
end

-- Lease what was picked; returns {seq, record} pairs, best first.
function claim.grant(q, picks, worker, lease)
  local seqs, got = {}, {}
  for i, one in ipairs(picks) do
    seqs[i] = one.seq
  end
  for i, record in ipairs(rec.many(q, seqs)) do
    local ends = record and life.ends(record)
    if not record or record[1] ~= 2 or (ends and ends <= q.now) then
      refuse(q, picks[i], record)
    else
      grant(q, picks[i], record, worker, lease)
      got[#got + 1] = {seqs[i], record}
    end
  end
  q.m.t_claimed = q.m.t_claimed + #got
  return got
end

function claim.remember(q, operation, got)
  local held = {}
  for _, pair in ipairs(got) do
    held[#held + 1] = pair[1]
    held[#held + 1] = pair[2][6]
  end
  write.timed(q, 'op:' .. operation, cmsgpack.pack(held), ctx.config(q)[15])
end

-- The leases of an earlier answer that are still held, nil when there was none.
function claim.replay(q, operation, worker)
  local packed = redis.call('GET', q.p .. 'op:' .. operation)
  if not packed then
    return nil
  end
  local held, seqs, got = cmsgpack.unpack(packed), {}, {}
  for i = 1, #held, 2 do
    seqs[#seqs + 1] = held[i]
  end
  q.packed = {}
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and record[1] == 3 and record[6] == held[2 * i] and record[11] == worker then
      got[#got + 1] = {seqs[i], record}
      q.packed[seqs[i]] = cmsgpack.pack(record)
    end
  end
  return {claim.reply(q, got)}
end

-- What the worker needs to run them: lanes once each, then per job the record and everything beside it.
function claim.reply(q, got)
  local keys, wanted, listed, rows, jobs = {}, {}, {}, {}, {}
  for _, pair in ipairs(got) do
    keys[#keys + 1] = q.p .. 'p:' .. pair[1]
    if pair[2][6] % FENCE_STEP > 1 then
      keys[#keys + 1] = q.p .. 'g:' .. pair[1]
      keys[#keys + 1] = q.p .. 'c:' .. pair[1]
    end
    if not listed[pair[2][2]] then
      listed[pair[2][2]] = true
      wanted[#wanted + 1] = pair[2][2]
    end
  end
  local values, at = #keys > 0 and redis.call('MGET', unpack(keys)) or {}, 1
  for lane, row in pairs(lanes.rows(q, wanted)) do
    rows[#rows + 1] = lane
    rows[#rows + 1] = row[1]
  end
  for _, pair in ipairs(got) do
    local job = {pair[1], q.packed[pair[1]], values[at] or '', '', '', {}}
    at = at + 1
    if pair[2][6] % FENCE_STEP > 1 then
      job[4], job[5] = values[at] or '', values[at + 1] or ''
      job[6] = redis.call('LRANGE', q.p .. 'a:' .. pair[1], 0, -1)
      at = at + 2
    end
    jobs[#jobs + 1] = job
  end
  return rows, jobs
end

-- Parts of settle: one way to end for each ending, and the refusal of a stale fence.

local settle = {}

-- Refuse a stale fence: counted, and one event per job and fence.
function settle.reject(q, seq, record, fence, worker)
  if not record or class.among(record[29] or {}, fence) then
    return
  end
  record[29] = record[29] or {}
  table.insert(record[29], fence)
  if #record[29] > EVENTS_KEPT then
    table.remove(record[29], 1)
  end
  q.m.t_rejected = q.m.t_rejected + 1
  events.note(q, 15, seq, record, worker, {fence = fence})
end

-- What an event says about the failure that ended an attempt: its packed form, or nothing.
local function facts(item)
  return item[9] or nil
end

local function again(q, seq, record, item, attempt, found)
  local counted, overload = item[4], item[5]
  local spent = counted and record[7] + 1 >= record[20]
  local overrun = overload and record[9] + 1 > record[22]
  if overload then
    record[9] = record[9] + 1
  elseif counted then -- what used no attempt says nothing of the service's room
    record[9] = 0
  end
  if spent or overrun then
    attempt('fail', counted)
    return life.finish(q, 6, seq, record, 6, facts(item))
  end
  attempt('retry', counted)
  q.m.t_retried = q.m.t_retried + 1
  life.leave(q, seq, record)
  life.relane(q, record, item[7] > 0 and lanes.number(q, found, item[7]) or nil)
  if item[6] > 0 then
    return life.schedule(q, 7, seq, record, q.now + item[6], facts(item))
  end
  life.ready(q, 7, seq, record, facts(item))
end

-- End the attempt of a lease that is held.
function settle.apply(q, seq, record, item, progress, found)
  local ending = item[3]
  local function attempt(outcome, counted)
    local endpoint = item[10] or progress[3]
    life.attempt(q, seq, record, outcome, item[9], counted, endpoint, progress[2])
  end
  record[27], record[28] = item[2], ending
  if record[19] > 0 or ending == 5 then
    attempt('cancel', false)
    life.finish(q, 11, seq, record, 7, facts(item))
  elseif ending == 1 then
    if item[8] then
      write.put(q, 's:' .. seq, item[8])
    end
    life.finish(q, 5, seq, record, 5)
  elseif ending == 2 then
    again(q, seq, record, item, attempt, found)
  elseif ending == 3 then
    attempt('wait', false)
    life.leave(q, seq, record)
    life.hold(q, seq, record, item[11], item[6] > 0 and q.now + item[6] or 0, facts(item))
  else
    attempt('fail', true)
    life.finish(q, 6, seq, record, 6, facts(item))
  end
end

-- Upkeep of jobs: grace after a restart, expiry, escalated cancels, retention. Slices, never everything.

local upkeep = {}
local SLICE = 100
local GRACED = 500

-- Extend these leases; those that ended meanwhile are left out.
local function extend(q, seqs)
  local ends, words = redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs)), {}
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and ends[i] then
      words[#words + 1] = math.max(tonumber(ends[i]), q.now + record[32])
      words[#words + 1] = seqs[i]
    end
  end
  if #words > 0 then
    redis.call('ZADD', q.p .. 'leases', unpack(words))
    redis.call('ZADD', q.p .. 'grace', unpack(words))
    redis.call('PEXPIRE', q.p .. 'grace', 7200000)
  end
end

-- After another server took over, or nobody was heard for five seconds, every live lease gets one lease of grace; what is lost then is not charged.
-- True while some still have to get it: until then no lease may be taken back.
function upkeep.grace(q)
  if q.m.heir > 0 then
    q.m.heir = 0
    redis.call('ZRANGESTORE', q.p .. 'gracing', q.p .. 'leases', 0, -1)
    redis.call('PEXPIRE', q.p .. 'gracing', 7200000)
  end
  local seqs = redis.call('ZRANGE', q.p .. 'gracing', 0, GRACED - 1)
  if #seqs > 0 then
    extend(q, seqs)
    redis.call('ZREM', q.p .. 'gracing', unpack(seqs))
  end
  return #seqs == GRACED
end

-- Take back running jobs that did not acknowledge a cancel within its grace.
function upkeep.escalate(q)
  local seqs = due.take(q, 'cancels', SLICE)
  local progress = life.remotes(q, seqs)
  for i, record in ipairs(rec.many(q, seqs)) do
    local seq = seqs[i]
    if record and record[1] == 3 and record[19] > 0 then
      local g = progress[seq]
      life.attempt(q, seq, record, 'cancel', false, false, g[3], g[2])
      life.finish(q, 11, seq, record, 7)
    else
      write.zrem(q, 'cancels', seq)
    end
  end
  return #seqs
end

-- Expire jobs whose deadline or longest wait has passed.
function upkeep.expire(q)
  local seqs = due.take(q, 'expiry', SLICE)
  q.m.exp = due.next_of(q, 'expiry', #seqs) or 0
  for i, record in ipairs(rec.many(q, seqs)) do
    local ends = record and record[15] == 0 and life.ends(record)
    if ends and ends <= q.now then
      life.expire(q, seqs[i], record)
    elseif ends then
      ctx.expires(q, ends, seqs[i])
    else
      write.zrem(q, 'expiry', seqs[i])
    end
  end
  return #seqs
end

local function surplus(q, key, count)
  local over = redis.call('ZCARD', q.p .. key) - count
  return over > 0 and redis.call('ZRANGE', q.p .. key, 0, math.min(over, SLICE) - 1) or {}
end

local function purge(q, key, seqs)
  for i, record in ipairs(rec.many(q, seqs)) do
    write.zrem(q, key, seqs[i])
    if record and record[15] > 0 then
      rec.uncount(q, record)
      rec.drop(q, seqs[i])
      q.m.t_purged = q.m.t_purged + 1
    end
  end
  return #seqs
end

-- Forget jobs that ended long ago, or that are too many.
function upkeep.retire(q, cfg)
  local aged = redis.call('ZRANGE', q.p .. 'done', '-inf', q.now - cfg[10], 'BYSCORE', 'LIMIT', 0, SLICE)
  if #aged == 0 then
    aged = surplus(q, 'done', cfg[11])
  end
  local dead = redis.call('ZRANGE', q.p .. 'dead', '-inf', q.now - cfg[12], 'BYSCORE', 'LIMIT', 0, SLICE)
  return math.max(purge(q, 'done', aged), purge(q, 'dead', dead))
end

-- Keep the last `events` and at least an hour of them: marks an hour apart say which offsets are that old.
function upkeep.trim(q, cfg)
  if q.now - q.m.mark_at >= 3600000000 then
    q.m.trim_to, q.m.mark_off, q.m.mark_at = q.m.mark_off, q.m.off, q.now
    redis.call('ZREMRANGEBYRANK', q.p .. 'epochs', 0, -EPOCHS_KEPT - 1)
  end
  local first = math.min(q.m.off - cfg[13], q.m.trim_to)
  if first > 0 then
    redis.call('XTRIM', q.p .. 'ev', 'MINID', '~', int(first) .. '-0')
  end
end

-- Upkeep of lanes: which nobody serves, which are empty. In slices.

local sweep = {}
local JUDGE_WITHIN = 5000000
local EMPTY_FOR = 60000000

-- Whether every live class was judged for this lane, or had its time.
local function judged(q, known, lane, row)
  if q.now - row[5] > JUDGE_WITHIN then
    return true
  end
  for _, upto in pairs(known) do
    if upto < lane then
      return false
    end
  end
  return true
end

-- From the top down: nobody may find a lane whose row is gone, and after an error midway the next sweep goes on.
local function retire_lane(q, lane, row)
  if redis.call('HGET', q.p .. 'lanekeys', row[6]) == int(lane) then
    redis.call('HDEL', q.p .. 'lanekeys', row[6])
  end
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    redis.call('HDEL', q.p .. 'cl:' .. name, lane)
  end
  redis.call('HDEL', q.p .. 'un', lane)
  redis.call('UNLINK', q.p .. 'cls:' .. lane, q.p .. 'lt:' .. lane)
  redis.call('HDEL', q.p .. 'lanes', lane)
end

-- How many live workers of a class must not run this lane.
local function barred_of(q, row, name)
  local n = 0
  for _, worker in ipairs(row[3]) do
    n = n + (q.workers[worker] == name and 1 or 0)
  end
  return n
end

-- Which of these lanes a live worker may run: class by class, so that one that covers all is asked once.
local function served_of(q, left, rows)
  local served = {}
  for name, size in pairs(q.sizes) do
    if #left == 0 then
      break
    end
    local rest, offers = {}, redis.call('HMGET', q.p .. 'cl:' .. name, unpack(left))
    for i, lane in ipairs(left) do
      if offers[i] and size > barred_of(q, rows[lane], name) then
        served[lane] = true
      else
        rest[#rest + 1] = lane
      end
    end
    left = rest
  end
  return served
end

local function mark(q, lane, row, served, marked)
  if served and marked then
    redis.call('HDEL', q.p .. 'un', lane)
    events.say(q, 'workable', false, nil, false, {lane = row[6]})
  elseif not served and not marked then
    redis.call('HSET', q.p .. 'un', lane, q.now)
    events.say(q, 'unworkable', false, nil, false, {lane = row[6]})
  end
end

local function look_at(q, known, some)
  local live = redis.call('HMGET', q.p .. 'lc', unpack(some))
  local ready = redis.call('HMGET', q.p .. 'lr', unpack(some))
  local marks = redis.call('HMGET', q.p .. 'un', unpack(some))
  local rows, wait = lanes.rows(q, some), {}
  for i, lane in ipairs(some) do
    wait[#wait + 1] = ready[i] and lane or nil
  end
  local served = served_of(q, wait, rows)
  for i, lane in ipairs(some) do
    local row = rows[lane]
    if not live[i] and q.now - row[5] > EMPTY_FOR then
      retire_lane(q, lane, row)
    elseif ready[i] and (served[lane] or judged(q, known, lane, row)) then
      mark(q, lane, row, served[lane], marks[i])
    end
  end
end

-- Look at some lanes: mark those with waiting jobs that nobody serves, take marks back, retire empty ones.
function sweep.lanes(q, known, most)
  local got = redis.call('HSCAN', q.p .. 'lanes', int(q.m.cursor), 'COUNT', most)
  q.m.cursor = tonumber(got[1])
  local numbers = {}
  for i = 1, #got[2], 2 do
    numbers[#numbers + 1] = tonumber(got[2][i])
  end
  for first = 1, #numbers, 1000 do
    look_at(q, known, {unpack(numbers, first, math.min(first + 999, #numbers))})
  end
  return q.m.cursor ~= 0
end

-- Upkeep of workers and their classes: who is gone, and what only they covered. In slices.

local DROPPED = 500

-- Live workers per class, for this call.
local function sizes_of(q)
  local sizes = {}
  for _, name in pairs(class.workers(q)) do
    sizes[name] = (sizes[name] or 0) + 1
  end
  return sizes
end

-- Forget workers whose presence ran out, and classes that no live worker is of. Returns how far the live classes are
-- judged, and true when lanes of a class that is going are left.
function sweep.workers(q)
  q.sizes = sizes_of(q)
  if #q.dead > 0 then
    redis.call('HDEL', q.p .. 'w', unpack(q.dead))
  end
  local idle, left, known, got = 0, DROPPED, {}, redis.call('HGETALL', q.p .. 'classes')
  for i = 1, #got, 2 do
    local name = got[i]
    if not q.sizes[name] then
      left = left > 0 and left - sweep.drop_class(q, name, left) or 0
    else
      known[name] = tonumber(got[i + 1])
      if #q.dead > 0 then
        redis.call('SREM', q.p .. 'idle:' .. name, unpack(q.dead))
      end
      idle = idle + redis.call('SCARD', q.p .. 'idle:' .. name)
    end
  end
  q.m.idle = idle
  return known, left <= 0
end

-- Drop a class, at most so many of its lanes now; returns how many. Meanwhile it counts as judged for no lane, so that
-- a worker of it that comes back is judged for all of them again.
function sweep.drop_class(q, name, most)
  redis.call('HSET', q.p .. 'classes', name, 0)
  local covered = redis.call('HSCAN', q.p .. 'cl:' .. name, '0', 'COUNT', most)[2]
  local gone = {}
  for i = 1, #covered, 2 do
    redis.call('SREM', q.p .. 'cls:' .. covered[i], name)
    gone[#gone + 1] = covered[i]
  end
  for first = 1, #gone, 1000 do
    redis.call('HDEL', q.p .. 'cl:' .. name, unpack(gone, first, math.min(first + 999, #gone)))
  end
  if redis.call('EXISTS', q.p .. 'cl:' .. name) == 0 then
    redis.call('HDEL', q.p .. 'classes', name)
    redis.call('UNLINK', q.p .. 'TN:' .. name, q.p .. 'idle:' .. name)
  end
  return #gone
end

-- Upkeep of tenants' passes: none is remembered for ever.

local PASSES = 10000

-- Forget passes that the queue has caught up with. Tenants that come once never let it catch up, so it takes a
-- turn ahead when they are many; and a queue that has been empty for an hour owes nobody anything.
function sweep.passes(q)
  local many = redis.call('HLEN', q.p .. 'pass')
  if many == 0 then
    return
  end
  local live = q.m.n_ready + q.m.n_scheduled + q.m.n_running + q.m.n_waiting
  if live == 0 and q.m.off == q.m.mark_off and q.now - q.m.mark_at >= 3600000000 then
    redis.call('UNLINK', q.p .. 'pass')
    return
  end
  if many > PASSES then
    q.m.V = q.m.V + 10080
  end
  local got, gone = redis.call('HRANDFIELD', q.p .. 'pass', many > PASSES and 1000 or 100, 'WITHVALUES'), {}
  for i = 1, #got, 2 do
    if tonumber(got[i + 1]) <= q.m.V then
      gone[#gone + 1] = got[i]
    end
  end
  if #gone > 0 then
    redis.call('HDEL', q.p .. 'pass', unpack(gone))
  end
end

-- Limits that all processes share. A row is {paid for until, nobody before, {lease, ...}, how it is written, next moment
-- in its line, pace of that line, last grant}; a lease is {call, its end, what it was charged, how much of that would
-- still come back, fence, its begin}. Times are microseconds.
-- `limends` has the names of all rows by their end.

local limits = {POLL = 1000000}

-- The row as it is now. What was charged comes back by time as well as by settling, but only once: a lease gives
-- back no more than was outstanding at any moment since it was charged.
function limits.row(q, name)
  local packed = redis.call('GET', q.p .. 'lim:' .. name)
  local row = packed and cmsgpack.unpack(packed) or {0, 0, {}, '', 0, 0, 0}
  local ahead, leases = math.max(0, row[1] - q.now), {}
  for _, lease in ipairs(row[3]) do
    if lease[2] > q.now then
      lease[4] = math.min(lease[4], ahead)
      leases[#leases + 1] = lease
    end
  end
  row[3] = leases
  return row
end

-- Keep a row for as long as it says anything.
function limits.keep(q, name, row)
  local ends = math.max(row[1], row[2], row[5])
  for _, lease in ipairs(row[3]) do
    ends = math.max(ends, lease[2])
  end
  if ends > q.now then
    write.timed(q, 'lim:' .. name, cmsgpack.pack(row), int(math.ceil((ends - q.now) / 1000) + 1000))
    write.zadd(q, 'limends', ends, name)
  else
    write.drop(q, 'lim:' .. name)
    write.zrem(q, 'limends', name)
  end
end

-- Forget the names of rows that are gone, some with each call; before any row is kept.
function limits.trim(q)
  for _, name in ipairs(redis.call('ZRANGE', q.p .. 'limends', '-inf', int(q.now), 'BYSCORE', 'LIMIT', 0, 16)) do
    write.zrem(q, 'limends', name)
  end
end

-- The lease of a call that this holder may use: its own, or that of one before it.
function limits.lease(row, call, fence)
  for at, lease in ipairs(row[3]) do
    if lease[1] == call and lease[5] <= fence then
      return lease, at
    end
  end
end

-- How long until this may be taken, 0 for now.
function limits.after(q, row, want)
  local held, ahead = math.max(0, row[2] - q.now), math.max(0, row[1] - q.now)
  if want.lease then
    return 0
  end
  if want.kind == 'in_flight' then
    if #row[3] < want.allow then
      return held
    end
    local first = limits.POLL
    for _, lease in ipairs(row[3]) do
      first = math.min(first, lease[2] - q.now)
    end
    return math.max(held, first)
  end
  -- What fits at all goes when everything is paid, lest rounding keep it out for ever.
  return math.max(held, math.min(ahead, ahead + want.charge - want.allow), 0)
end

function limits.take(q, row, want, call, fence, ends)
  row[4] = want.about
  if want.lease then
    want.lease[2], want.lease[5] = math.max(want.lease[2], ends), fence
    return
  end
  limits.pace(q, row, want)
  row[1] = math.max(row[1], q.now) + want.charge
  if want.kind ~= 'rate' then
    table.insert(row[3], {call, ends, want.charge, want.charge, fence, q.now})
  end
end

-- The line at a limit beside which others have room (one model's, one tenant's): who is refused is given a moment of
-- its own to come back at, behind those who were refused before, so that they do not all ask at once and again.
-- Nobody is remembered: a row knows the next moment to give away, and the pace of its line: how long a call in flight
-- takes, or how many times slower than the limit allows calls went while others waited.

-- No moment is given away that is further ahead of when there is room at all.
local FURTHEST = 60000000
-- With room for so long and nobody who used it, those who are waited for come no more: they ended, or nobody runs them.
local DESERTED = 1000000
-- Rather a little early than that nobody is there: so the pace finds its way back, too.
local EARLY = 0.9
local SLOWEST = 10

local function waited_for(q, row, want)
  if row[5] <= q.now then
    return false
  end
  if want.kind == 'in_flight' then
    return #row[3] > 0
  end
  return q.now - math.max(row[2], row[7], row[1] + want.charge - want.allow) <= DESERTED
end

-- How much later than one call the next may go.
local function step(q, row, want)
  if want.kind ~= 'in_flight' then
    return want.charge * math.max(1, row[6] * EARLY)
  end
  local ages = 0
  for _, lease in ipairs(row[3]) do
    ages = ages + q.now - lease[6]
  end
  local takes = math.max(ages / math.max(1, #row[3]), row[6] > 0 and row[6] or limits.POLL)
  return takes * EARLY / want.allow
end

-- How long until one may go who has no moment of its own: behind all who have one.
function limits.behind(q, row, want, after)
  if want.kind == 'in_flight' or not waited_for(q, row, want) then
    return after
  end
  return math.max(after, row[5] - q.now)
end

-- Whether who is refused needs a moment: a new one, or another, since what is left is too long to be waited for here.
function limits.lacks(want, after, patience)
  if want.line == 'held' then
    return patience == 0 or (want.kind ~= 'in_flight' and after > patience)
  end
  return want.line == 'last'
end

-- Give the next moment away. Returns how long until then, and whether it is one of its own: with all of them given away
-- it comes back when half of them are over.
function limits.line(q, row, want, after)
  local first, flow = q.now + after, step(q, row, want)
  if want.kind == 'in_flight' then
    first = math.max(q.now, row[2]) + flow
  end
  local moment = waited_for(q, row, want) and math.max(first, row[5]) or first
  if moment > q.now + after + FURTHEST then
    return after + FURTHEST / 2, 'full'
  end
  row[5] = moment + flow
  return moment - q.now, 'own'
end

-- A call goes: how slowly they follow one another, while others wait.
function limits.pace(q, row, want)
  if want.charge > 0 then
    if row[5] > q.now and row[7] > 0 then
      local slower = math.min(SLOWEST, (q.now - row[7]) / want.charge)
      row[6] = (row[6] > 0 and row[6] or 1) * 0.8 + slower * 0.2
    end
    row[7] = q.now
  end
end

-- A call in flight has ended: how long they take.
function limits.took(q, row, lease)
  if lease[3] == 0 then
    local took = q.now - lease[6]
    row[6] = row[6] > 0 and row[6] * 0.8 + took * 0.2 or took
  end
end

-- Operations: the same id gives the first answer again. The caller puts verb and job into the id.
-- An answer is either kept with the call's other writes, by verbs that may be done twice, or promised before them.

local ops = {}

function ops.seen(q, id)
  local got = redis.call('GET', q.p .. 'op:' .. id)
  return got and cmsgpack.unpack(got)
end

-- Remember the answer with the writes of this call, and return it.
function ops.keep(q, id, answer)
  write.timed(q, 'op:' .. id, cmsgpack.pack(answer), ctx.config(q)[15])
  return answer
end

-- Promise an answer before anything is written. `mark` is what the job shows as long as the promise is not kept: by
-- it the same call, sent again after an error midway, tells whether there is anything left to do.
function ops.promise(q, id, mark, answer)
  redis.call('SET', q.p .. 'op:' .. id, cmsgpack.pack({mark, answer}), 'PX', ctx.config(q)[15])
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

-- The registry of endpoints: what was announced, leases by end, what operators said. Each change raises `epv`.
-- A row is {since, seen, sealed announcement}; a mark is {why it is paused or false, resets}.

local places = {}

function places.row(q, endpoint)
  local packed = redis.call('HGET', q.p .. 'endpoints', endpoint)
  return packed and cmsgpack.unpack(packed)
end

function places.alive(q, endpoint)
  local ends = redis.call('ZSCORE', q.p .. 'epends', endpoint)
  return ends and tonumber(ends) > q.now
end

function places.mark(q, endpoint)
  local packed = redis.call('HGET', q.p .. 'epmarks', endpoint)
  return packed and cmsgpack.unpack(packed) or {false, 0}
end

-- Say a change and raise the version, so that whoever follows looks again.
function places.turn(q, endpoint, to, reason)
  events.say(q, 'endpoint', false, nil, false, {endpoint = endpoint, to = to, reason = reason ~= '' and reason or nil})
  redis.call('INCR', q.p .. 'epv')
end

function places.remove(q, endpoint, reason)
  places.turn(q, endpoint, 'gone', reason)
  redis.call('HDEL', q.p .. 'endpoints', endpoint)
  write.zrem(q, 'epends', endpoint)
end

-- Remove those whose lease ran out, at most `most`; returns how many.
function places.lapse(q, most)
  local ids = redis.call('ZRANGE', q.p .. 'epends', '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
  for _, endpoint in ipairs(ids) do
    places.remove(q, endpoint, 'its lease ran out')
  end
  return #ids
end

-- The cache of results: `rc:<key>` a sealed result, `rf:<key>` a flight {job, fence}, `rends` keys by end, `rsize`
-- bytes by key and in all, `rstat` counts by kind.

local results = {}

function results.count(q, kind, what)
  write.bump(q, 'rstat', kind .. '|' .. what, 1)
end

-- Whether this job may have the flight: nobody holds it, or it itself does, with no later attempt.
function results.mine(q, key, job, fence)
  local packed = redis.call('GET', q.p .. 'rf:' .. key)
  local held = packed and cmsgpack.unpack(packed)
  return not held or (held[1] == job and held[2] <= fence), held
end

function results.take(q, key, job, fence, ms)
  write.timed(q, 'rf:' .. key, cmsgpack.pack({job, fence}), ms)
end

-- Change what a key's result counts in bytes.
function results.weigh(q, key, size)
  local delta = size - tonumber(redis.call('HGET', q.p .. 'rsize', key) or '0')
  write.bump(q, 'rsize', key, delta)
  write.bump(q, 'rsize', 'all', delta)
  return delta
end

function results.forget(q, key)
  write.drop(q, 'rc:' .. key)
  write.zrem(q, 'rends', key)
  return results.weigh(q, key, 0)
end

-- Make room, for one result more: what has ended goes, then what ends soonest, a slice at a time.
function results.trim(q, key, most, most_bytes)
  local entries = redis.call('ZCARD', q.p .. 'rends')
  local bytes = tonumber(redis.call('HGET', q.p .. 'rsize', 'all') or '0')
  local soonest = redis.call('ZRANGE', q.p .. 'rends', 0, 63, 'WITHSCORES')
  for i = 1, #soonest, 2 do
    if tonumber(soonest[i + 1]) > q.now and entries < most and bytes <= most_bytes then
      return
    end
    if soonest[i] ~= key then
      entries, bytes = entries - 1, bytes + results.forget(q, soonest[i])
    end
  end
end

-- The registry of workers: rows by id, leases by end, those that are gone for an hour, each move an event.
-- A row is {state, seen, reason, sealed announcement, queues}. `q` is the registry's own context, opened like a queue's.

local staff = {}
local GONE_KEPT = 3600000000

function staff.row(q, worker)
  local packed = redis.call('HGET', q.p .. 'workers', worker)
  return packed and cmsgpack.unpack(packed)
end

function staff.alive(q, worker)
  local ends = redis.call('ZSCORE', q.p .. 'alive', worker)
  return ends and tonumber(ends) > q.now
end

local TAKING = {ready = true, busy = true}

-- Queues have to look who is there.
function staff.changed(q)
  q.m.roll = q.m.roll + 1
end

-- Store a row and say the move.
function staff.move(q, worker, row, state, reason)
  if not (TAKING[row[1]] and TAKING[state]) then
    staff.changed(q)
  end
  events.say(q, 'worker', false, nil, worker, {from = row[1] or '', to = state, reason = reason})
  row[1], row[3] = state, reason
end

function staff.keep(q, worker, row)
  write.hset(q, 'workers', worker, cmsgpack.pack(row))
end

-- A worker is no longer live; it stays listed for an hour.
function staff.bury(q, worker, row, state, reason, since)
  staff.move(q, worker, row, state, reason)
  staff.keep(q, worker, row)
  write.zrem(q, 'alive', worker)
  write.zadd(q, 'gone', since, worker)
  write.drop(q, 'cmd:' .. worker)
end

-- Bury those whose lease ran out, at most `most`; returns how many.
function staff.lapse(q, most)
  local ids = redis.call('ZRANGE', q.p .. 'alive', '-inf', q.now, 'BYSCORE', 'LIMIT', 0, most)
  if #ids == 0 then
    return 0
  end
  local ends = redis.call('ZMSCORE', q.p .. 'alive', unpack(ids))
  local rows = redis.call('HMGET', q.p .. 'workers', unpack(ids))
  for i, worker in ipairs(ids) do
    local row = rows[i] and cmsgpack.unpack(rows[i]) or {false, 0, '', ''}
    staff.bury(q, worker, row, 'lost', 'its lease ran out', tonumber(ends[i]))
  end
  return #ids
end

-- Forget those who have been gone for an hour, at most `most`.
function staff.forget(q, most)
  local old = redis.call('ZRANGE', q.p .. 'gone', '-inf', q.now - GONE_KEPT, 'BYSCORE', 'LIMIT', 0, most)
  if #old > 0 then
    redis.call('HDEL', q.p .. 'workers', unpack(old))
    redis.call('ZREM', q.p .. 'gone', unpack(old))
  end
  return #old
end

-- Audits: a job's record is the truth; where each job has to be found follows from it.

local audit = {}
local INDEXES = {'delayed', 'waiting', 'leases', 'expiry', 'cancels', 'done', 'dead'}
audit.INDEXES = INDEXES

-- The score that a job has to have in each index by time; absent where it must not be. Leases end by themselves.
function audit.places(q, record)
  local state, places = record[1], {}
  local ended = state == 5 or state == 7 or state == 8 or state == 6
  if state == 1 then
    places.delayed = record[13]
  elseif state == 4 then
    places.waiting = record[13] > 0 and record[13] or math.huge
  elseif state == 3 then
    places.leases = q.now + record[32]
    places.cancels = record[19] > 0 and record[19] or nil
  elseif ended then
    places[state == 6 and 'dead' or 'done'] = record[15]
  end
  places.expiry = not ended and life.ends(record) or nil
  return places
end

-- The line or the waiting room of a ready job: key, member.
function audit.line(seq, record)
  if record[30] == 1 then
    return 'kw:' .. record[2] .. ':' .. record[5], seq
  end
  return 'r:' .. record[2] .. ':' .. record[3], line.member(seq, record)
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

local function verb_announce(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local state = argv[2]
  local ttl = tonumber(argv[3])
  local paths = cmsgpack.unpack(argv[4])
  local said = argv[5]
  local reason = argv[6]
  local queues = argv[7]
-- A worker says that it lives, how it is and what it offers; an illegal move of its state is refused.
-- keys meta
-- args worker:text state:text ttl:int paths:pack said:blob reason:text queues:text
-- reply {1, 1 when commands wait for it else 0, version of the catalogue} or {0, state before} when there is no such move
-- `paths` maps the state before ('none' for an unknown worker) to the states that lead to the new one.
local q = ctx.open(meta_key)
local row = staff.row(q, worker) or {false, 0, '', ''}
if row[1] and not staff.alive(q, worker) and redis.call('ZSCORE', q.p .. 'alive', worker) then
  staff.move(q, worker, row, 'lost', 'its lease ran out')
end
local before = row[1] or 'none'
local path = before == state and {} or paths[before]
if not path then
  return {0, before}
end
for _, step in ipairs(path) do
  staff.move(q, worker, row, step, step == 'lost' and 'another process took its name' or reason)
end
if row[5] ~= queues then
  staff.changed(q)
end
staff.keep(q, worker, {state, q.now, reason, said, queues})
write.zadd(q, 'alive', q.now + ttl, worker)
write.zrem(q, 'gone', worker)
ctx.commit(q)
return {1, redis.call('EXISTS', q.p .. 'cmd:' .. worker), redis.call('GET', q.p .. 'v') or '0'}

end
redis.register_function{function_name='hostler1_announce', callback=verb_announce, flags={}}
local function verb_audit_counts(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local moves = tonumber(argv[1])
  local repair = (argv[2] == '1')
  local counted = tail(argv, 3)
-- Compare every counter with a recount that was made while the queue stood at `moves`: its last offset, and the jobs
-- that were removed besides, since what is kept no longer leaves without an event.
-- keys meta
-- args moves:int repair:flag *counted:text
-- flags allow-oom
-- reply {1, sentence, ...}, or {0} when the queue has moved since
-- `counted` is hash, field, number, ...; a hash with the field '' is compared though nothing counts for it.
local q = ctx.open(meta_key)
if q.m.off + q.m.t_purged ~= moves then
  return {0}
end
local should, reply = {td = {}, lc = {}, lr = {}, use = {}, meta = {}}, {1}
for i = 1, #counted, 3 do
  local fields = should[counted[i]] or {}
  should[counted[i]] = fields
  if counted[i + 1] ~= '' then
    fields[counted[i + 1]] = tonumber(counted[i + 2])
  end
end
for _, name in ipairs(META) do
  if name == 'bytes' or string.sub(name, 1, 2) == 'n_' then
    local value = should.meta[name] or 0
    if audit.number(reply, name, q.m[name], value) and repair then
      q.m[name] = value
    end
  end
end
local last = events.last(q) or q.m.off
if audit.number(reply, 'off', q.m.off, last) and repair then
  q.m.off = last
end
should.meta = nil
for hash, fields in pairs(should) do
  local is, got = {}, redis.call('HGETALL', q.p .. hash)
  for i = 1, #got, 2 do
    is[got[i]] = tonumber(got[i + 1])
    fields[got[i]] = fields[got[i]] or 0
  end
  for field, value in pairs(fields) do
    local differs = audit.number(reply, hash .. ' ' .. field, is[field] or 0, value)
    if differs and repair and value > 0 then
      redis.call('HSET', q.p .. hash, field, value)
    elseif differs and repair then
      redis.call('HDEL', q.p .. hash, field)
    end
  end
end
if repair then
  -- Whoever was parked beside a key that has room takes its place now: nothing else may ever touch that key.
  for hash in pairs(should) do
    if string.sub(hash, 1, 2) == 'k:' then
      locks.state(q, string.sub(hash, 3))
    end
  end
  ctx.commit(q)
end
return reply

end
redis.register_function{function_name='hostler1_audit_counts', callback=verb_audit_counts, flags={'allow-oom'}}
local function verb_audit_jobs(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local repair = (argv[1] == '1')
  local seqs = tail(argv, 2)
-- Compare where these jobs are found with where their records say they are.
-- keys meta
-- args repair:flag *seqs:text
-- flags allow-oom
-- reply list of sentences
local q = ctx.open(meta_key)
local found, scores, records = {}, audit.scores(q, seqs), rec.many(q, seqs)
for i, seq in ipairs(seqs) do
  local record = records[i]
  local places = record and audit.places(q, record) or {}
  local state = record and STATES[record[1]] or 'not there'
  for _, name in ipairs(audit.INDEXES) do
    local is, should = scores[name][i] and tonumber(scores[name][i]), places[name]
    if is and not should then
      found[#found + 1] = 'job ' .. seq .. ' is ' .. state .. ' but listed in ' .. name
      write.zrem(q, name, seq)
    elseif should and (not is or (is ~= should and name ~= 'leases')) then
      found[#found + 1] = 'job ' .. seq .. ' is ' .. state .. ' but not in its place in ' .. name
      write.zadd(q, name, should == math.huge and 'inf' or should, seq)
      audit.due(q, name, should, seq)
    end
  end
  if record and record[1] == 2 then
    local key, member = audit.line(seq, record)
    local is = redis.call('ZSCORE', q.p .. key, member)
    if not is or tonumber(is) ~= record[4] then
      found[#found + 1] = 'job ' .. seq .. ' is ready but not in its place in ' .. key
      if record[30] == 1 then
        write.zadd(q, key, record[4], seq)
      else
        line.place(q, seq, record)
      end
    end
  elseif not record then
    local left = {}
    for _, kind in ipairs({'p:', 'a:', 'g:', 'c:', 's:', 'pv:'}) do
      left[#left + 1] = q.p .. kind .. seq
    end
    if redis.call('EXISTS', unpack(left)) > 0 then
      found[#found + 1] = 'job ' .. seq .. ' is not there but something of it is kept'
      rec.drop(q, seq)
    end
  end
end
if repair then
  ctx.commit(q)
end
return found

end
redis.register_function{function_name='hostler1_audit_jobs', callback=verb_audit_jobs, flags={'allow-oom'}}
local function verb_audit_lanes(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seqs = tail(argv, 1)
-- Which of these jobs stand in a lane that is gone: no worker ever finds them there.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply {seq, sentence, seq, sentence, ...}
-- An error between a lane's row and its count leaves a lane that looks empty, which a sweep takes away.
local q = ctx.open(meta_key)
local found, live, numbers = {}, {}, {}
for i, record in ipairs(rec.many(q, seqs)) do
  if record and record[15] == 0 then
    live[#live + 1] = seqs[i]
    numbers[#numbers + 1] = record[2]
  end
end
local rows = #live > 0 and redis.call('HMGET', q.p .. 'lanes', unpack(numbers)) or {}
for i, seq in ipairs(live) do
  if not rows[i] then
    found[#found + 1] = seq
    found[#found + 1] = 'job ' .. seq .. ' stands in lane ' .. int(numbers[i]) .. ', which is gone'
  end
end
return found

end
redis.register_function{function_name='hostler1_audit_lanes', callback=verb_audit_lanes, flags={'no-writes'}}
local function verb_audit_leaf(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local repair = (argv[1] == '1')
  local key = argv[2]
  local members = tail(argv, 3)
-- Compare some members of one line, or of one waiting room of a concurrency key, with the records.
-- keys meta
-- args repair:flag key:text *members:text
-- flags allow-oom
-- reply list of sentences
local q = ctx.open(meta_key)
local found, gone, seqs = {}, {}, {}
local there = redis.call('ZMSCORE', q.p .. key, unpack(members))
for i, member in ipairs(members) do
  seqs[i] = string.match(member, '^%d+') or '0'
end
for i, record in ipairs(rec.many(q, seqs)) do
  local place, name
  if record and record[1] == 2 then
    place, name = audit.line(seqs[i], record)
  end
  if there[i] and (place ~= key or name ~= members[i]) then
    found[#found + 1] = key .. ' lists ' .. members[i] .. ', which does not wait there'
    gone[#gone + 1] = members[i]
  end
end
if repair and #gone > 0 then
  redis.call('ZREM', q.p .. key, unpack(gone))
end
return found

end
redis.register_function{function_name='hostler1_audit_leaf', callback=verb_audit_leaf, flags={'allow-oom'}}
local function verb_audit_lines(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local repair = (argv[1] == '1')
  local leaves = tail(argv, 2)
-- Compare the heads of these lines, and who is listed for them, with the lines themselves.
-- keys meta
-- args repair:flag *leaves:text
-- flags allow-oom
-- reply list of sentences
-- A leaf is <lane>:<tenant>.
local q = ctx.open(meta_key)
local found = {}
for _, leaf in ipairs(leaves) do
  local lane, tenant = string.match(leaf, '^(%d+):(.*)$')
  local head = redis.call('ZRANGE', q.p .. 'r:' .. leaf, 0, 0, 'WITHSCORES')[2]
  local listed = redis.call('ZSCORE', q.p .. 'tl:' .. tenant, lane)
  local shown = redis.call('SISMEMBER', q.p .. 'lt:' .. lane, tenant) == 1
  local passed = redis.call('ZSCORE', q.p .. 'TN', tenant)
  if head and (tonumber(listed or '-1') ~= tonumber(head) or not shown or not passed) then
    found[#found + 1] = 'the line r:' .. leaf .. ' is not listed as it is'
    if repair then
      redis.call('ZADD', q.p .. 'tl:' .. tenant, head, lane)
      redis.call('SADD', q.p .. 'lt:' .. lane, tenant)
      redis.call('ZADD', q.p .. 'TN', 'NX', q.m.V, tenant)
      for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
        redis.call('ZADD', q.p .. 'TN:' .. name, 'NX', q.m.V, tenant)
      end
    end
  elseif not head and (listed or shown) then
    found[#found + 1] = 'the line r:' .. leaf .. ' is empty but listed'
    if repair then
      redis.call('ZREM', q.p .. 'tl:' .. tenant, lane)
      redis.call('SREM', q.p .. 'lt:' .. lane, tenant)
      if redis.call('EXISTS', q.p .. 'tl:' .. tenant) == 0 then
        redis.call('ZREM', q.p .. 'TN', tenant)
      end
    end
  end
end
return found

end
redis.register_function{function_name='hostler1_audit_lines', callback=verb_audit_lines, flags={'allow-oom'}}
local function verb_audit_relane(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local seq = argv[1]
  local lane_given = cmsgpack.unpack(argv[2])
-- Move a job whose lane is gone to a lane that is there.
-- keys meta
-- args seq:text lane_given:pack
-- flags allow-oom
-- reply 1 when it was moved, 2 when there was no need, 0 when the queue has all the lanes it may have
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record or record[15] > 0 or redis.call('HEXISTS', q.p .. 'lanes', record[2]) == 1 then
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
local ready = record[1] == 2
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

end
redis.register_function{function_name='hostler1_audit_relane', callback=verb_audit_relane, flags={'allow-oom'}}
local function verb_audit_tally(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seqs = tail(argv, 1)
-- What these jobs count for, from their records.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply {hash, field, number, hash, field, number, ...}
local q = ctx.open(meta_key)
local sums = {}
local function add(hash, field, value)
  sums[hash] = sums[hash] or {}
  sums[hash][field] = (sums[hash][field] or 0) + value
end
for _, record in ipairs(rec.many(q, seqs)) do
  local state = record and record[1]
  if record then
    add('meta', 'n_' .. STATES[state], 1)
  end
  if state == 2 or state == 1 or state == 4 or state == 3 then
    local lane, key = int(record[2]), record[5] and 'k:' .. record[5]
    add('meta', 'bytes', record[18])
    add('td', record[3], 1)
    add('lc', lane, 1)
    if state == 2 then
      add('lr', lane, 1)
    end
    if key and state == 2 then
      add(key, (record[30] == 1 and 'p' or 'q') .. lane, 1)
    elseif key and state == 3 then
      add(key, 'r', 1)
    end
    for i = 1, #(record[25] or {}), 2 do
      add('use', record[25][i], record[25][i + 1])
    end
  end
end
local reply = {}
for hash, fields in pairs(sums) do
  for field, value in pairs(fields) do
    reply[#reply + 1] = hash
    reply[#reply + 1] = field
    reply[#reply + 1] = int(value)
  end
end
return reply

end
redis.register_function{function_name='hostler1_audit_tally', callback=verb_audit_tally, flags={'no-writes'}}
local function verb_cancel(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local seq = argv[1]
  local operation = argv[2]
  local reason = argv[3]
-- Cancel a job: at once unless it runs; a running one is asked to stop, once, and has a grace to do so.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1, state} done, {2, state} it has ended otherwise, {0} no such job
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local record = rec.one(q, seq)
if not record then
  return {0}
end
local state, facts = record[1], ops.facts(reason)
if state == 3 then
  if record[19] == 0 then
    record[19] = q.now + ctx.config(q)[4]
    write.zadd(q, 'cancels', record[19], seq)
    events.note(q, 11, seq, record, record[11], facts)
  end
elseif state == 2 or state == 1 or state == 4 then
  life.finish(q, 11, seq, record, 7, facts)
elseif state ~= 7 then
  return {2, state}
end
local answer = ops.keep(q, operation, {1, record[1]})
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_cancel', callback=verb_cancel, flags={'allow-oom'}}
local function verb_catalogue(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local version = argv[1]
-- Every declared kind and queue, unless the caller's version is the present one.
-- keys meta
-- args version:text
-- flags no-writes
-- reply {version} when it is known, else {version, {kind, row, ...}, {queue, row, ...}}
local p = ctx.prefix(meta_key)
local now = redis.call('GET', p .. 'v') or '0'
if now == version then
  return {now}
end
return {now, redis.call('HGETALL', p .. 'kinds'), redis.call('HGETALL', p .. 'queues')}

end
redis.register_function{function_name='hostler1_catalogue', callback=verb_catalogue, flags={'no-writes'}}
local function verb_census(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local version = argv[1]
-- Every announced endpoint whose lease holds, and every mark; nothing but the time when no version is newer.
-- keys meta
-- args version:text
-- flags no-writes
-- reply {now, version} or {now, version, {endpoint, row, end, ...}, {endpoint, mark, ...}}
-- The version is a number of the registry's and how many leases hold, so that one that runs out is a change at once.
local q = ctx.open(meta_key)
local held = redis.call('ZCOUNT', q.p .. 'epends', '(' .. string.format('%.0f', q.now), '+inf')
local current = (redis.call('GET', q.p .. 'epv') or '0') .. '.' .. string.format('%.0f', held)
if current == version then
  return {q.now, current}
end
local rows, ids = {}, redis.call('ZRANGE', q.p .. 'epends', '(' .. string.format('%.0f', q.now), '+inf', 'BYSCORE')
local packed = #ids > 0 and redis.call('HMGET', q.p .. 'endpoints', unpack(ids)) or {}
local ends = #ids > 0 and redis.call('ZMSCORE', q.p .. 'epends', unpack(ids)) or {}
for i, endpoint in ipairs(ids) do
  if packed[i] then
    rows[#rows + 1] = endpoint
    rows[#rows + 1] = packed[i]
    rows[#rows + 1] = ends[i]
  end
end
return {q.now, current, rows, redis.call('HGETALL', q.p .. 'epmarks')}

end
redis.register_function{function_name='hostler1_census', callback=verb_census, flags={'no-writes'}}
local function verb_claim(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local class_name = argv[2]
  local limit = tonumber(argv[3])
  local pools = cmsgpack.unpack(argv[4])
  local standings = cmsgpack.unpack(argv[5])
  local covers = cmsgpack.unpack(argv[6])
  local upto = tonumber(argv[7])
  local lease = tonumber(argv[8])
  local operation = argv[9]
  local suspicion = tonumber(argv[10])
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
local got = claim.grant(q, s.picks, worker, lease > 0 and lease or ctx.config(q)[1])
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

end
redis.register_function{function_name='hostler1_claim', callback=verb_claim, flags={}}
local function verb_command(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local order = argv[2]
  local reason = argv[3]
  local kept = tonumber(argv[4])
-- Leave a command for a live worker.
-- keys meta
-- args worker:text order:text reason:text kept:int
-- reply 1, or 0 when no such worker lives
local q = ctx.open(meta_key)
if not staff.alive(q, worker) then
  return 0
end
local offset = events.say(q, 'command', false, nil, worker, {command = order, reason = reason})
write.push(q, 'cmd:' .. worker, cmsgpack.pack({offset, order}))
ctx.commit(q)
if kept > 0 then
  redis.call('PEXPIRE', q.p .. 'cmd:' .. worker, kept)
end
return 1

end
redis.register_function{function_name='hostler1_command', callback=verb_command, flags={}}
local function verb_commands(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local after = tonumber(argv[2])
-- The commands that wait for a worker; those up to `after` it has heard, so they go.
-- keys meta
-- args worker:text after:int
-- flags allow-oom
-- reply {number, order, number, order, ...}, oldest first; numbers rise
-- A number that lies above all (the engine was restored since) says nothing.
-- Nothing goes before the worker says that it came: an answer that is lost on the way is given again.
local q = ctx.open(meta_key)
local key, reply = q.p .. 'cmd:' .. worker, {}
for _, packed in ipairs(redis.call('LRANGE', key, 0, -1)) do
  local one = cmsgpack.unpack(packed)
  if one[1] > after or after > q.m.off then
    reply[#reply + 1] = one[1]
    reply[#reply + 1] = one[2]
  else
    redis.call('LPOP', key)
  end
end
return reply

end
redis.register_function{function_name='hostler1_commands', callback=verb_commands, flags={'allow-oom'}}
local function verb_configure(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local config = argv[1]
  local hash = argv[2]
-- Store a queue's configuration; it holds from the next call on.
-- keys  meta
-- args  config:blob hash:text
-- flags allow-oom
-- reply 1
local q = ctx.open(meta_key)
write.put(q, 'cfg', config)
q.m.cfg = hash
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_configure', callback=verb_configure, flags={'allow-oom'}}
local function verb_crew(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
-- Begin a round of upkeep, unless another's is fresh or under way: who counts as live in this queue.
-- keys  meta
-- flags allow-oom
-- reply {0} when there is nothing to do, else
-- {1, roll and microseconds since workers were last looked up, worker, how long it counts as live, worker, ...}
-- That is 0 for less than four seconds more, or no more: it is to be introduced again before this round goes on, so that
-- one that lives and does not claim (it is paused) is never taken for gone; 1 for less than eight seconds, 2 for longer.
local now, tick, turn = ctx.glance(meta_key, 'tick', 'turn')
local latest = math.max(tick, turn)
if latest > 0 and now - latest < 500000 then
  return {0}
end
local q = ctx.open(meta_key)
q.m.turn = q.now
ctx.commit(q)
local reply, rows = {1, int(q.m.roll), int(q.now - q.m.mustered)}, redis.call('HGETALL', q.p .. 'w')
for i = 1, #rows, 2 do
  reply[#reply + 1] = rows[i]
  reply[#reply + 1] = math.max(0, math.min(2, math.floor((cmsgpack.unpack(rows[i + 1])[1] - q.now) / 4000000)))
end
return reply

end
redis.register_function{function_name='hostler1_crew', callback=verb_crew, flags={'allow-oom'}}
local function verb_declare(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local family = argv[1]
  local name = argv[2]
  local row = argv[3]
  local queue = argv[4]
  local queue_row = argv[5]
  local reason = argv[6]
-- Store the row of a kind or a queue; what changes nothing raises no version.
-- keys meta
-- args family:text name:text row:blob queue:text queue_row:blob reason:text
-- reply {1 when it changed, former row or '', version}
-- The version is raised first: after an error between the two, readers look once too often, not once too seldom. It is
-- a time, so that one which a fail-over lost is not given to other rows.
-- `family` is `kinds` or `queues`; `queue_row` is stored for `queue` when that has no row ('' for neither).
local q = ctx.open(meta_key)
local before = redis.call('HGET', q.p .. family, name)
local missing = queue ~= '' and redis.call('HEXISTS', q.p .. 'queues', queue) == 0
if before == row and not missing then
  return {0, before, redis.call('GET', q.p .. 'v') or '0'}
end
if missing then
  write.hset(q, 'queues', queue, queue_row)
end
write.hset(q, family, name, row)
events.say(q, 'declare', false, nil, nil, {
  family = family, name = name, queue = queue, reason = reason ~= '' and reason or nil,
})
local version = int(math.max(tonumber(redis.call('GET', q.p .. 'v') or '0') + 1, q.now))
write.put(q, 'v', version)
ctx.commit(q)
return {1, before or '', version}

end
redis.register_function{function_name='hostler1_declare', callback=verb_declare, flags={}}
local function verb_demand(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local most = tonumber(argv[1])
-- Jobs that may be claimed and name models, by lane.
-- keys meta
-- args most:int
-- flags no-writes
-- reply {now, {lane, packed lane, waiting, ready at of the head of its line, ...}}; nothing while the queue is held
-- At most `most` tenants, those whose turn comes first, and the 16 lanes of each whose jobs came first are looked at.
local q = ctx.open(meta_key)
if q.m.paused == 1 or q.m.draining == 1 then
  return {int(q.now), {}}
end
local found, seqs, where = {}, {}, {}
for _, tenant in ipairs(redis.call('ZRANGE', q.p .. 'TN', 0, most - 1)) do
  local numbers = {}
  for _, lane in ipairs(redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 15)) do
    numbers[#numbers + 1] = tonumber(lane)
  end
  local rows = lanes.rows(q, numbers)
  for _, lane in ipairs(numbers) do
    local known = found[lane]
    if known == nil and rows[lane] then
      local needs = cmsgpack.unpack(rows[lane][1]).needs
      known = needs and needs.models and {rows[lane][1], 0, 0} or false
      found[lane] = known
    end
    if known then
      local leaf = q.p .. 'r:' .. lane .. ':' .. tenant
      local head = redis.call('ZRANGE', leaf, 0, 0)[1]
      known[2] = known[2] + redis.call('ZCARD', leaf)
      if head then
        seqs[#seqs + 1], where[#where + 1] = string.match(head, '^%d+'), known
      end
    end
  end
end
for first = 1, #seqs, 1000 do
  for i, record in ipairs(rec.many(q, {unpack(seqs, first, math.min(first + 999, #seqs))})) do
    local known = where[first + i - 1]
    if record and (known[3] == 0 or record[13] < known[3]) then
      known[3] = record[13]
    end
  end
end
local words = {}
for lane, known in pairs(found) do
  if known and known[2] > 0 then
    for _, word in ipairs({lane, known[1], known[2], int(known[3] > 0 and known[3] or q.now)}) do
      words[#words + 1] = word
    end
  end
end
return {int(q.now), words}

end
redis.register_function{function_name='hostler1_demand', callback=verb_demand, flags={'no-writes'}}
local function verb_dismiss(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local workers = tail(argv, 1)
-- Workers that are known to be gone no longer count as live; their leases are not touched.
-- keys meta
-- args *workers:text
-- flags allow-oom
-- reply how many did
local q = ctx.open(meta_key)
local rows, gone = redis.call('HMGET', q.p .. 'w', unpack(workers)), 0
for i, worker in ipairs(workers) do
  if rows[i] then
    gone = gone + redis.call('HDEL', q.p .. 'w', worker)
    wake.count(q, -redis.call('SREM', q.p .. 'idle:' .. cmsgpack.unpack(rows[i])[2], worker))
  end
end
return gone

end
redis.register_function{function_name='hostler1_dismiss', callback=verb_dismiss, flags={'allow-oom'}}
local function verb_drain(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local operation = argv[1]
  local reason = argv[2]
-- Refuse new submits and let what is there run out.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local answer = ops.keep(q, operation, {ops.queue(q, 'drain', {draining = 1}, reason) and 1 or 0})
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_drain', callback=verb_drain, flags={'allow-oom'}}
local function verb_enroll(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local endpoint = argv[1]
  local ttl = tonumber(argv[2])
  local said = argv[3]
-- An endpoint says, or somebody says for it, that it lives, where it is and what it is.
-- keys meta
-- args endpoint:text ttl:int said:blob
-- reply 1 when that was news, 0 when it only renewed its lease
local q = ctx.open(meta_key)
local row = places.row(q, endpoint)
local live = row and places.alive(q, endpoint)
local news = not live or row[3] ~= said
if news then
  places.turn(q, endpoint, live and 'changed' or 'joined', '')
end
write.hset(q, 'endpoints', endpoint, cmsgpack.pack({live and row[1] or q.now, q.now, said}))
write.zadd(q, 'epends', q.now + ttl, endpoint)
ctx.commit(q)
return news and 1 or 0

end
redis.register_function{function_name='hostler1_enroll', callback=verb_enroll, flags={}}
local function verb_explain(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seq = argv[1]
-- What stands between one job and its start.
-- keys meta
-- args seq:text
-- flags no-writes
-- reply {0} when there is no such job, else {1, record, envelope, packed lane, now, paused, draining, reason,
-- lane unworkable since or 0, ahead or -1, active tenants, weight in thousandths of all active, running of its key,
-- limit of the key, {pool|amount, taken in thousandths, ...}, {attempt, ...}}
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record then
  return {0}
end
local cfg, lane, tenant = ctx.config(q), record[2], record[3]
local ahead = -1
if record[1] == 2 then
  local mine, count = {}, 0
  for _, name in ipairs(redis.call('SMEMBERS', q.p .. 'cls:' .. lane)) do
    mine[name] = true
  end
  local lanes_of = redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 999)
  ahead = 0
  for _, other in ipairs(lanes_of) do
    local shared = next(mine) == nil or tonumber(other) == lane
    for _, name in ipairs(shared and {} or redis.call('SMEMBERS', q.p .. 'cls:' .. other)) do
      shared = shared or mine[name]
    end
    if shared then
      local leaf, vt = q.p .. 'r:' .. other .. ':' .. tenant, int(record[4])
      count = count + redis.call('ZCOUNT', leaf, '-inf', '(' .. vt)
      for _, member in ipairs(redis.call('ZRANGE', leaf, vt, vt, 'BYSCORE', 'LIMIT', 0, 1000)) do
        count = count + (string.match(member, '^%d+') < seq and 1 or 0)
      end
    end
  end
  ahead = count
end
local weights, total = cfg[16], 0
local active = redis.call('ZRANGE', q.p .. 'TN', 0, 999)
for _, name in ipairs(active) do
  total = total + (weights[name] or 1)
end
local running = record[5] and tonumber(redis.call('HGET', q.p .. 'k:' .. record[5], 'r') or '0') or 0
local share = total > 0 and math.floor(1000 * (weights[tenant] or 1) / total) or 1000
local packed = redis.call('HGET', q.p .. 'lanes', lane) or ''
return {
  1, redis.call('GET', q.p .. 'j:' .. seq), redis.call('GET', q.p .. 'p:' .. seq) or '', packed, int(q.now), q.m.paused,
  q.m.draining, q.m.reason or '', redis.call('HGET', q.p .. 'un', lane) or '0', ahead, #active, share, running,
  cfg[9], redis.call('HGETALL', q.p .. 'use'),
  redis.call('LRANGE', q.p .. 'a:' .. seq, 0, -1),
}

end
redis.register_function{function_name='hostler1_explain', callback=verb_explain, flags={'no-writes'}}
local function verb_history(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local after = tonumber(argv[1])
  local most = tonumber(argv[2])
-- Stream entries from the one that holds the offset after `after`.
-- keys meta
-- args after:int most:int
-- flags no-writes
-- reply {epoch, latest offset, first kept offset (0: none is kept), {id, packed entry, ...}}
local q = ctx.open(meta_key)
local first = redis.call('XRANGE', q.p .. 'ev', '-', '+', 'COUNT', 1)[1]
local kept = first and string.match(first[1], '^%d+') or '0'
local entries = {}
if first and after < q.m.off then
  local from = redis.call('XREVRANGE', q.p .. 'ev', int(after + 1) .. '-0', '-', 'COUNT', 1)[1]
  for _, entry in ipairs(redis.call('XRANGE', q.p .. 'ev', from and from[1] or '-', '+', 'COUNT', most)) do
    entries[#entries + 1] = entry[1]
    entries[#entries + 1] = entry[2][2]
  end
end
return {q.m.epoch, int(q.m.off), kept, entries}

end
redis.register_function{function_name='hostler1_history', callback=verb_history, flags={'no-writes'}}
local function verb_lapse(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local most = tonumber(argv[1])
  local events_kept = tonumber(argv[2])
-- Upkeep of the registry: lost workers are an event each, old ones are forgotten, the stream is bounded.
-- keys meta
-- args most:int events_kept:int
-- flags allow-oom
-- reply how often workers came, went, began or ceased to take work, or got other queues
-- Done at most every half second, whoever asks.
local q = ctx.open(meta_key)
if q.now - q.m.tick < 500000 and q.m.tick > 0 then
  return int(q.m.roll)
end
-- After another server took over, everybody gets ten seconds to be heard.
if q.now - q.m.heir < 10000000 then
  q.m.tick = q.now
  ctx.commit(q)
  return int(q.m.roll)
end
local lost, gone = staff.lapse(q, most), places.lapse(q, most)
local more = staff.forget(q, most) == most or lost == most or gone == most
if not more then
  q.m.tick = q.now
end
ctx.commit(q)
if q.m.off > events_kept then
  redis.call('XTRIM', q.p .. 'ev', 'MAXLEN', '~', events_kept)
end
return int(q.m.roll)

end
redis.register_function{function_name='hostler1_lapse', callback=verb_lapse, flags={'allow-oom'}}
local function verb_leave(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local endpoint = argv[1]
  local reason = argv[2]
-- An endpoint leaves the registry; what runs there is not touched.
-- keys meta
-- args endpoint:text reason:text
-- flags allow-oom
-- reply 1 when it was there, else 0
local q = ctx.open(meta_key)
if not places.row(q, endpoint) then
  return 0
end
places.remove(q, endpoint, reason)
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_leave', callback=verb_leave, flags={'allow-oom'}}
local function verb_limit_hold(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local name = argv[1]
  local wait = tonumber(argv[2])
-- A service said that nobody should call for a while; the longest that was said counts.
-- keys meta
-- args name:text wait:int
-- reply microseconds until calls may go again
local q = ctx.open(meta_key)
limits.trim(q)
local row = limits.row(q, name)
row[2] = math.max(row[2], q.now + wait)
limits.keep(q, name, row)
ctx.commit(q)
return int(row[2] - q.now)

end
redis.register_function{function_name='hostler1_limit_hold', callback=verb_limit_hold, flags={}}
local function verb_limit_lift(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local name = argv[1]
  local reason = argv[2]
-- An operator says that calls may go again: what a service said is forgotten, what was used is not.
-- keys meta
-- args name:text reason:text
-- reply microseconds for which nobody could have gone
local q = ctx.open(meta_key)
local row = limits.row(q, name)
local left = math.max(0, row[2] - q.now)
if left > 0 then
  row[2], row[5] = 0, 0
  limits.keep(q, name, row)
  events.say(q, 'limit', false, nil, false, {limit = name, to = 'lifted', reason = reason ~= '' and reason or nil})
  ctx.commit(q)
end
return int(left)

end
redis.register_function{function_name='hostler1_limit_lift', callback=verb_limit_lift, flags={}}
local function verb_limit_list(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local cursor = argv[1]
-- The limits that say anything now, a slice at a time.
-- keys meta
-- args cursor:text
-- flags no-writes
-- reply {next cursor ('0': that was all), {name, how it is written, microseconds paid for in advance, held, leases, ...}}
local q = ctx.open(meta_key)
local scanned, reply = redis.call('ZSCAN', q.p .. 'limends', cursor, 'COUNT', 200), {}
for i = 1, #scanned[2], 2 do
  if tonumber(scanned[2][i + 1]) > q.now then
    local row = limits.row(q, scanned[2][i])
    for _, word in ipairs({
      scanned[2][i], row[4], int(math.max(0, row[1] - q.now)), int(math.max(0, row[2] - q.now)), int(#row[3]),
    }) do
      reply[#reply + 1] = word
    end
  end
end
return {scanned[1], reply}

end
redis.register_function{function_name='hostler1_limit_list', callback=verb_limit_list, flags={'no-writes'}}
local function verb_limit_look(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local names = tail(argv, 1)
-- How limits are now.
-- keys meta
-- args *names:text
-- flags no-writes
-- reply list of {microseconds paid for in advance, microseconds that nobody may call, leases}
local q = ctx.open(meta_key)
local reply = {}
for _, name in ipairs(names) do
  local row = limits.row(q, name)
  reply[#reply + 1] = {int(math.max(0, row[1] - q.now)), int(math.max(0, row[2] - q.now)), int(#row[3])}
end
return reply

end
redis.register_function{function_name='hostler1_limit_look', callback=verb_limit_look, flags={'no-writes'}}
local function verb_limit_renew(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local call = argv[1]
  local fence = tonumber(argv[2])
  local lease = tonumber(argv[3])
  local names = tail(argv, 4)
-- A call takes longer than its leases, or somebody goes on with what another began.
-- keys meta
-- args call:text fence:int lease:int *names:text
-- reply how many leases it still had
local q = ctx.open(meta_key)
local found = 0
for _, name in ipairs(names) do
  local row = limits.row(q, name)
  local one = limits.lease(row, call, fence)
  if one then
    found = found + 1
    one[2], one[5] = math.max(one[2], q.now + lease), fence
    limits.keep(q, name, row)
  end
end
if found > 0 then
  ctx.commit(q)
end
return found

end
redis.register_function{function_name='hostler1_limit_renew', callback=verb_limit_renew, flags={}}
local function verb_limit_settle(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local call = argv[1]
  local fence = tonumber(argv[2])
  local used = tail(argv, 3)
-- A call ended: its places are free, and what it did not use comes back, or what it used beyond that is charged.
-- keys meta
-- args call:text fence:int *used:text
-- reply how many leases it still had
-- Two words for each limit: its name and the true charge, '' for what was reserved.
local q = ctx.open(meta_key)
local found = 0
for i = 1, #used, 2 do
  local row = limits.row(q, used[i])
  local lease, at = limits.lease(row, call, fence)
  if lease then
    found = found + 1
    table.remove(row[3], at)
    local beyond = (tonumber(used[i + 1]) or lease[3]) - lease[3]
    if beyond > 0 then
      row[1] = math.max(row[1], q.now) + beyond
    else
      local back = math.min(-beyond, lease[4])
      row[1], row[5] = row[1] - back, row[5] - back
    end
    limits.took(q, row, lease)
    limits.keep(q, used[i], row)
  end
end
if found > 0 then
  ctx.commit(q)
end
return found

end
redis.register_function{function_name='hostler1_limit_settle', callback=verb_limit_settle, flags={}}
local function verb_limit_take(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local call = argv[1]
  local fence = tonumber(argv[2])
  local lease = tonumber(argv[3])
  local patience = tonumber(argv[4])
  local wants = tail(argv, 5)
-- A call takes what it needs of all its limits, or nothing of any.
-- keys meta
-- args call:text fence:int lease:int patience:int *wants:text
-- reply {now, 0, '', ''} when granted, else {now, microseconds until it is worth asking again, the limit that says so,
-- whether that is a moment of its own}
-- A want is six words: limit, kind, charge, allowance (of calls in flight: how many), how the limit is written, and for
-- a limit with a line whether the call comes last there or has held a moment.
local q = ctx.open(meta_key)
local taken, longest, slowest = {}, 0, nil
for i = 1, #wants, 6 do
  local row = limits.row(q, wants[i])
  local want = {kind = wants[i + 1], charge = tonumber(wants[i + 2]), allow = tonumber(wants[i + 3])}
  want.about, want.line = wants[i + 4], wants[i + 5]
  local lease, at = limits.lease(row, call, fence)
  if lease and want.kind == 'amount' and lease[5] < fence then
    table.remove(row[3], at) -- the work runs once more: what it used before stays charged
    lease = nil
  end
  want.lease = want.kind ~= 'rate' and lease or nil
  local one = {wants[i], row, want, limits.after(q, row, want)}
  local after = want.line == 'last' and not want.lease and limits.behind(q, row, want, one[4]) or one[4]
  if after > longest then
    longest, slowest = after, one
  end
  taken[#taken + 1] = one
end
if slowest then
  local own = ''
  if limits.lacks(slowest[3], longest, patience) then
    longest, own = limits.line(q, slowest[2], slowest[3], slowest[4])
    slowest[2][4] = slowest[3].about
    limits.keep(q, slowest[1], slowest[2])
    ctx.commit(q)
  end
  return {int(q.now), int(math.ceil(longest)), slowest[1], own}
end
limits.trim(q)
for _, one in ipairs(taken) do
  limits.take(q, one[2], one[3], call, fence, q.now + lease)
  limits.keep(q, one[1], one[2])
end
ctx.commit(q)
return {int(q.now), '0', '', ''}

end
redis.register_function{function_name='hostler1_limit_take', callback=verb_limit_take, flags={}}
local function verb_look(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seqs = tail(argv, 1)
-- All that is kept of these jobs, as it is at one moment.
-- keys meta
-- args *seqs:text
-- flags no-writes
-- reply list of {seq, record, envelope, progress, result, {attempt, ...}, packed lane or '', 1 when unworkable}
-- Jobs that are not there are left out; at most 100 at a time.
local q = ctx.open(meta_key)
local reply, keys = {}, {}
for _, seq in ipairs(seqs) do
  for _, kind in ipairs({'j:', 'p:', 'g:', 's:'}) do
    keys[#keys + 1] = q.p .. kind .. seq
  end
end
if #keys == 0 then
  return reply
end
local got, numbers, at = redis.call('MGET', unpack(keys)), {}, {}
for i, seq in ipairs(seqs) do
  local packed = got[4 * i - 3]
  if packed then
    local record = cmsgpack.unpack(packed)
    local attempts = record[6] > 0 and redis.call('LRANGE', q.p .. 'a:' .. seq, 0, -1) or {}
    reply[#reply + 1] = {seq, packed, got[4 * i - 2] or '', got[4 * i - 1] or '', got[4 * i] or '', attempts, '', 0}
    numbers[#numbers + 1] = record[2]
    at[#at + 1] = record[1] == 2
  end
end
if #numbers > 0 then
  local rows = redis.call('HMGET', q.p .. 'lanes', unpack(numbers))
  local marks = redis.call('HMGET', q.p .. 'un', unpack(numbers))
  for i, one in ipairs(reply) do
    one[7] = rows[i] or ''
    one[8] = marks[i] and at[i] and 1 or 0
  end
end
return reply

end
redis.register_function{function_name='hostler1_look', callback=verb_look, flags={'no-writes'}}
local function verb_mark(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local endpoint = argv[1]
  local order = argv[2]
  local reason = argv[3]
-- An operator's word on an endpoint: `pause`, `resume`, or `reset` its breakers.
-- keys meta
-- args endpoint:text order:text reason:text
-- reply 1 when it changed anything, else 0
local q = ctx.open(meta_key)
local mark = places.mark(q, endpoint)
local before = mark[1]
if order == 'pause' then
  mark[1] = reason
elseif order == 'resume' then
  mark[1] = false
else
  mark[2] = mark[2] + 1
end
if order ~= 'reset' and before == mark[1] then
  return 0
end
places.turn(q, endpoint, order, reason)
write.hset(q, 'epmarks', endpoint, cmsgpack.pack(mark))
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_mark', callback=verb_mark, flags={}}
local function verb_members(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local most = tonumber(argv[1])
  local indexes = tail(argv, 2)
-- The jobs in some indexes by time (`dead`, `done`, `leases`, `delayed`, `waiting`), when they are few.
-- keys meta
-- args most:int *indexes:text
-- flags no-writes
-- reply {how many, seq, ...}; no seq when there are more than `most`
local q = ctx.open(meta_key)
local total, reply = 0, {0}
for _, name in ipairs(indexes) do
  total = total + redis.call('ZCARD', q.p .. name)
end
reply[1] = total
for _, name in ipairs(total <= most and indexes or {}) do
  for _, seq in ipairs(redis.call('ZRANGE', q.p .. name, 0, -1)) do
    reply[#reply + 1] = seq
  end
end
return reply

end
redis.register_function{function_name='hostler1_members', callback=verb_members, flags={'no-writes'}}
local function verb_now(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
-- The engine's clock, as the functions of this queue see it.
-- keys meta
-- flags no-writes
-- reply microseconds since the epoch
local q = ctx.open(meta_key)
return int(q.now)

end
redis.register_function{function_name='hostler1_now', callback=verb_now, flags={'no-writes'}}
local function verb_observe(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local endpoint = argv[2]
  local was = argv[3]
  local state = argv[4]
  local reason = argv[5]
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

end
redis.register_function{function_name='hostler1_observe', callback=verb_observe, flags={'allow-oom'}}
local function verb_pause(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local operation = argv[1]
  local reason = argv[2]
-- Stop claims from this queue; running work goes on.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local answer = ops.keep(q, operation, {ops.queue(q, 'pause', {paused = 1}, reason) and 1 or 0})
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_pause', callback=verb_pause, flags={'allow-oom'}}
local function verb_peek(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local last = tonumber(argv[1])
  local most = tonumber(argv[2])
  local seqs = tail(argv, 3)
-- The records of the jobs with the numbers from `last` downwards, or of those named.
-- keys meta
-- args last:int most:int *seqs:text
-- flags no-writes
-- reply {number below which to go on, seq, record, seq, record, ...}; only those that are there
local q = ctx.open(meta_key)
local names, below = seqs, SEQ_BASE
if #names == 0 then
  local top = last > 0 and math.min(last, q.m.seq) or q.m.seq
  -- Numbers between two lives of the queue were never given.
  local life = redis.call('ZRANGE', q.p .. 'lives', int(top), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
  local first = (tonumber(life[2]) or SEQ_BASE) + 1
  local lowest = math.max(first, top - most + 1)
  for seq = top, lowest, -1 do
    names[#names + 1] = int(seq)
  end
  if lowest > first then
    below = lowest
  elseif life[1] and tonumber(life[1]) > SEQ_BASE then
    below = tonumber(life[1]) + 1
  end
end
local reply, keys = {int(below)}, {}
for i, seq in ipairs(names) do
  keys[i] = q.p .. 'j:' .. seq
end
if #keys > 0 then
  for i, packed in ipairs(redis.call('MGET', unpack(keys))) do
    if packed then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = packed
    end
  end
end
return reply

end
redis.register_function{function_name='hostler1_peek', callback=verb_peek, flags={'no-writes'}}
local function verb_preview(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seq = argv[1]
-- The latest preview picture of a running job.
-- keys meta
-- args seq:text
-- flags no-writes
-- reply {whether the job is there (1 or 0), the picture or ''}
local q = ctx.open(meta_key)
local got = redis.call('MGET', q.p .. 'j:' .. seq, q.p .. 'pv:' .. seq)
return {got[1] and 1 or 0, got[2] or ''}

end
redis.register_function{function_name='hostler1_preview', callback=verb_preview, flags={'no-writes'}}
local function verb_progress(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local items = cmsgpack.unpack(argv[2])
-- Store progress, remote ids, checkpoints and previews of leases that are held; each progress is one event.
-- keys  meta
-- args  worker:text items:pack
-- flags allow-oom
-- reply {1 or 0, ...}: whether each lease is held
-- An item is {seq, fence, progress, remote, endpoint, checkpoint, preview}, each of the last five text or false.
local q = ctx.open(meta_key)
local seqs, status = {}, {}
for i, item in ipairs(items) do
  seqs[i] = item[1]
end
local stored = life.remotes(q, seqs)
local records = rec.many(q, seqs)
for i, item in ipairs(items) do
  local record, seq = records[i], seqs[i]
  if record and record[1] == 3 and record[6] == item[2] and record[11] == worker then
    status[i] = 1
    local g = stored[seq]
    if item[3] then
      g[1], g[4] = item[3], item[2]
      g[5] = events.say(q, 4, seq, record, worker, item[3])
    end
    g[2], g[3] = item[4] or g[2], item[5] or g[3]
    if item[6] then
      write.put(q, 'c:' .. seq, item[6])
    end
    if item[7] then
      write.timed(q, 'pv:' .. seq, item[7], PREVIEW_MS)
    end
    g.touched = true
  else
    status[i] = 0
    settle.reject(q, seq, record, item[2], worker)
  end
end
for seq, g in pairs(stored) do
  if g.touched then
    g.touched = nil
    write.put(q, 'g:' .. seq, cmsgpack.pack(g))
  end
end
ctx.commit(q)
return status

end
redis.register_function{function_name='hostler1_progress', callback=verb_progress, flags={'allow-oom'}}
local function verb_promote(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
-- Make delayed jobs that are due ready.
-- keys  meta
-- flags allow-oom
-- reply microseconds until one may be due, below zero when none waits
local q = ctx.open(meta_key)
due.promote(q, 100)
ctx.commit(q)
return due.left(q)

end
redis.register_function{function_name='hostler1_promote', callback=verb_promote, flags={'allow-oom'}}
local function verb_purge(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local seq = argv[1]
  local operation = argv[2]
  local reason = argv[3]
-- Remove a job that has ended, with all that is kept of it.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1} done, {2, state} it has not ended, {0} no such job
local q = ctx.open(meta_key)
local _, past = ops.promised(q, operation)
local record = rec.one(q, seq)
if not record then
  return past or {0}
end
local state = record[1]
if state ~= 5 and state ~= 6 and state ~= 7 and state ~= 8 then
  return {2, state}
end
local answer = ops.promise(q, operation, false, {1})
events.say(q, 'purge', seq, record, false, ops.facts(reason))
write.zrem(q, state == 6 and 'dead' or 'done', seq)
rec.uncount(q, record)
rec.drop(q, seq)
q.m.t_purged = q.m.t_purged + 1
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_purge', callback=verb_purge, flags={'allow-oom'}}
local function verb_renew(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local class_name = argv[2]
  local held = cmsgpack.unpack(argv[3])
  local covers = cmsgpack.unpack(argv[4])
  local upto = tonumber(argv[5])
-- Extend the leases that a worker still holds, and say which are lost or were asked to stop.
-- keys  meta
-- args  worker:text class_name:text held:pack covers:pack upto:int
-- flags allow-oom
-- reply {now, draining, earliest end or 0, {status, ...}, {upto, {lane, row, ...}}}; 0 lost, 1 held, 2 asked to stop
-- `held` is seq, fence, seq, fence, ...; `class_name` is empty when the worker never claimed here.
local q = ctx.open(meta_key)
local rest = {}
if class_name ~= '' then
  local mine = class.open(q, class_name)
  if upto > mine.known then
    mine = class.cover(q, class_name, covers, upto)
  end
  class.present(q, worker, class_name)
  rest = mine.known < q.m.lane and class.unjudged(q, mine, 200) or {}
end
local seqs, status, words, earliest = {}, {}, {}, 0
for i = 1, #held, 2 do
  seqs[#seqs + 1] = held[i]
end
local ends = #seqs > 0 and redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs)) or {}
for i, record in ipairs(rec.many(q, seqs)) do
  status[i] = 0
  if record and record[1] == 3 and record[6] == held[2 * i] and record[11] == worker then
    status[i] = record[19] > 0 and 2 or 1
    local stop = math.max(tonumber(ends[i] or '0'), q.now + record[32])
    write.zadd(q, 'leases', stop, seqs[i])
    earliest = earliest == 0 and stop or math.min(earliest, stop)
  end
end
ctx.commit(q)
return {q.now, q.m.draining, earliest, status, rest}

end
redis.register_function{function_name='hostler1_renew', callback=verb_renew, flags={'allow-oom'}}
local function verb_replay(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local seq = argv[1]
  local operation = argv[2]
  local reason = argv[3]
  local lane_given = cmsgpack.unpack(argv[4])
-- Make a dead job ready again: a new generation with fresh budgets in the lane it was submitted to.
-- keys meta
-- args seq:text operation:text reason:text lane_given:pack
-- flags allow-oom
-- reply {1, state} done, {2, state} it is not dead, {3} the queue has all the lanes it may have, {0} no such job
local q = ctx.open(meta_key)
local generation, past = ops.promised(q, operation)
local record = rec.one(q, seq)
if past and not (record and record[1] == 6 and record[10] == generation) then
  return past
elseif not record then
  return {0}
elseif record[1] ~= 6 then
  return {2, record[1]}
end
local lane = lanes.number(q, lanes.look_up(q, lane_given), 1)
if not lane then
  return {3}
end
local answer = ops.promise(q, operation, record[10], {1, 2})
life.leave(q, seq, record)
record[2], record[10] = lane, record[10] + 1
record[7], record[8], record[9], record[33] = 0, 0, 0, false
record[15], record[19], record[17], record[11] = 0, 0, 0, false
life.count(q, record, 1)
life.ready(q, 13, seq, record, ops.facts(reason))
if record[16] > 0 then
  ctx.expires(q, record[16], seq)
end
q.m.t_replayed = q.m.t_replayed + 1
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_replay', callback=verb_replay, flags={'allow-oom'}}
local function verb_result_begin(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local key = argv[1]
  local kind = argv[2]
  local job = argv[3]
  local fence = tonumber(argv[4])
  local lasts = tonumber(argv[5])
-- Ask for a result; when none is kept, take the flight: the right to run it for all equal jobs.
-- keys meta
-- args key:text kind:text job:text fence:int lasts:int
-- reply {1, sealed result}, {2} the flight is yours, {3, milliseconds that another's still lasts}, or {0} when nothing
-- is kept and `lasts` is 0: then no flight is wanted.
local q = ctx.open(meta_key)
local sealed = redis.call('GET', q.p .. 'rc:' .. key)
local answer
if sealed then
  results.count(q, kind, 'hits')
  answer = {1, sealed}
elseif lasts == 0 then
  results.count(q, kind, 'misses')
  answer = {0}
else
  local mine, held = results.mine(q, key, job, fence)
  if mine then
    if not held then
      results.count(q, kind, 'misses')
    end
    results.take(q, key, job, fence, lasts)
    answer = {2}
  else
    results.count(q, kind, 'waits')
    answer = {3, math.max(0, redis.call('PTTL', q.p .. 'rf:' .. key))}
  end
end
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_result_begin', callback=verb_result_begin, flags={}}
local function verb_result_clear(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local cursor = argv[1]
  local prefix = argv[2]
-- Drop results by what their keys begin with, a slice at a time.
-- keys meta
-- args cursor:text prefix:text
-- flags allow-oom
-- reply {next cursor ('0': that was all), how many were dropped}
local q = ctx.open(meta_key)
local scanned = redis.call('ZSCAN', q.p .. 'rends', cursor, 'COUNT', 200)
local dropped, seen = 0, {}
for i = 1, #scanned[2], 2 do
  local key = scanned[2][i]
  if string.sub(key, 1, #prefix) == prefix and not seen[key] then
    seen[key] = true
    results.forget(q, key)
    dropped = dropped + 1
  end
end
ctx.commit(q)
return {scanned[1], dropped}

end
redis.register_function{function_name='hostler1_result_clear', callback=verb_result_clear, flags={'allow-oom'}}
local function verb_result_give_up(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local key = argv[1]
  local job = argv[2]
  local fence = tonumber(argv[3])
-- End a flight without a result.
-- keys meta
-- args key:text job:text fence:int
-- flags allow-oom
-- reply 1, or 0 when this job had no flight
local q = ctx.open(meta_key)
local mine, held = results.mine(q, key, job, fence)
if not (mine and held) then
  return 0
end
write.drop(q, 'rf:' .. key)
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_result_give_up', callback=verb_result_give_up, flags={'allow-oom'}}
local function verb_result_hold(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local key = argv[1]
  local job = argv[2]
  local fence = tonumber(argv[3])
  local lasts = tonumber(argv[4])
-- Renew a flight.
-- keys meta
-- args key:text job:text fence:int lasts:int
-- reply 1, or 0 when another job or a later attempt has it
local q = ctx.open(meta_key)
if not results.mine(q, key, job, fence) then
  return 0
end
results.take(q, key, job, fence, lasts)
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_result_hold', callback=verb_result_hold, flags={}}
local function verb_result_put(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local key = argv[1]
  local kind = argv[2]
  local job = argv[3]
  local ttl = tonumber(argv[4])
  local most = tonumber(argv[5])
  local most_bytes = tonumber(argv[6])
  local sealed = argv[7]
-- Keep a result, and end the job's flight.
-- keys meta
-- args key:text kind:text job:text ttl:int most:int most_bytes:int sealed:blob
-- reply 1
local q = ctx.open(meta_key)
results.trim(q, key, most, most_bytes - #sealed)
results.weigh(q, key, #sealed)
results.count(q, kind, 'kept')
write.zadd(q, 'rends', q.now + ttl * 1000, key)
write.timed(q, 'rc:' .. key, sealed, ttl)
local _, held = results.mine(q, key, job, 0)
if held and held[1] == job then
  write.drop(q, 'rf:' .. key)
end
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_result_put', callback=verb_result_put, flags={}}
local function verb_result_view(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
-- How the cache of results is used.
-- keys meta
-- flags no-writes
-- reply {entries, bytes, {kind|what, count, ...}}
local q = ctx.open(meta_key)
return {
  redis.call('ZCOUNT', q.p .. 'rends', '(' .. int(q.now), '+inf'),
  tonumber(redis.call('HGET', q.p .. 'rsize', 'all') or '0'),
  redis.call('HGETALL', q.p .. 'rstat'),
}

end
redis.register_function{function_name='hostler1_result_view', callback=verb_result_view, flags={'no-writes'}}
local function verb_resume(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local operation = argv[1]
  local reason = argv[2]
-- Allow claims and submits again, and wake those who wait for work.
-- keys meta
-- args operation:text reason:text
-- flags allow-oom
-- reply {1 when that changed anything}
local q = ctx.open(meta_key)
local past = ops.seen(q, operation)
if past then
  return past
end
local was = q.m.paused == 1
local changed = ops.queue(q, 'resume', {paused = 0, draining = 0}, '')
if changed and reason ~= '' then
  q.events[#q.events][6] = ops.facts(reason)
end
local answer = ops.keep(q, operation, {changed and 1 or 0})
ctx.commit(q)
if was and q.m.n_ready > 0 and q.m.idle > 0 then
  wake.count(q, -wake.anyone(q, q.m.n_ready))
end
return answer

end
redis.register_function{function_name='hostler1_resume', callback=verb_resume, flags={'allow-oom'}}
local function verb_roster(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
-- Every worker that lives or is gone for less than an hour.
-- keys meta
-- flags no-writes
-- reply {now, id, packed row, end of its lease or '', gone since or '', id, ...}
local q = ctx.open(meta_key)
local rows, reply = redis.call('HGETALL', q.p .. 'workers'), {int(q.now)}
for first = 1, #rows, 2000 do
  local ids = {}
  for i = first, math.min(first + 1999, #rows), 2 do
    ids[#ids + 1] = rows[i]
  end
  local ends = redis.call('ZMSCORE', q.p .. 'alive', unpack(ids))
  local gone = redis.call('ZMSCORE', q.p .. 'gone', unpack(ids))
  for i, id in ipairs(ids) do
    reply[#reply + 1] = id
    reply[#reply + 1] = rows[first + 2 * i - 1]
    reply[#reply + 1] = ends[i] and int(tonumber(ends[i])) or ''
    reply[#reply + 1] = gone[i] and int(tonumber(gone[i])) or ''
  end
end
return reply

end
redis.register_function{function_name='hostler1_roster', callback=verb_roster, flags={'no-writes'}}
local function verb_settle(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local items = cmsgpack.unpack(argv[2])
  local lanes_given = cmsgpack.unpack(argv[3])
-- End attempts, in the order given; each is judged by itself, and a stale fence changes nothing.
-- keys  meta
-- args  worker:text items:pack lanes_given:pack
-- flags allow-oom
-- reply {code, state, ...}: 1 accepted, 0 refused; the job's state now (0 when there is no such job)
-- An item is {seq, fence, ending, counted, overload, delay, lane (from 1, or 0), result, failure, endpoint, reason};
-- delay in microseconds (for `hold` until it wakes, 0 for ever), the last four text or false.
local q = ctx.open(meta_key)
local seqs, unfinished, replies = {}, {}, {}
for i, item in ipairs(items) do
  seqs[i] = item[1]
  if item[3] ~= 1 then
    unfinished[#unfinished + 1] = item[1]
  end
end
local found = lanes.look_up(q, lanes_given)
local records, progress = rec.many(q, seqs), life.remotes(q, unfinished)
for i, item in ipairs(items) do
  local record, seq, code = records[i], seqs[i], 0
  if record and record[1] == 3 and record[6] == item[2] and record[11] == worker then
    settle.apply(q, seq, record, item, progress[seq] or {}, found)
    code = 1
  elseif record and record[27] == item[2] and record[28] == item[3] then
    code = 1
  else
    settle.reject(q, seq, record, item[2], worker)
  end
  replies[#replies + 1] = code
  replies[#replies + 1] = record and record[1] or 0
end
ctx.commit(q)
return replies

end
redis.register_function{function_name='hostler1_settle', callback=verb_settle, flags={'allow-oom'}}
local function verb_share(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local endpoint = argv[1]
  local worker = argv[2]
  local coming = argv[3]
  local loads = argv[4]
  local busy = tonumber(argv[5])
  local waiting = argv[6]
  local ttl = tonumber(argv[7])
-- Workers in front of one endpoint that holds one model at a time say what they do there, and hear what the others do.
-- keys meta
-- args endpoint:text worker:text coming:text loads:blob busy:int waiting:blob ttl:int
-- reply {who decides, the model that is to come or '', loads so far, the models of the latest, who began it, microseconds
-- since then, microseconds since another one had a call there or -1, {what waits for models as another one sees it, ...}}
-- One of them decides which model comes next, for as long as it goes on saying so: the first. `loads` are the models that
-- this one has begun to load since it last said, '' for none.
local q = ctx.open(meta_key)
local packed = redis.call('GET', q.p .. 'mem:' .. endpoint)
local row = packed and cmsgpack.unpack(packed) or {worker, 0, '', 0, '', '', q.now, {}}
if row[1] == worker or row[2] <= q.now then
  row[1], row[2], row[3] = worker, q.now + ttl, coming
end
if loads ~= '' then
  row[4], row[5], row[6], row[7] = row[4] + 1, loads, worker, q.now
end
-- Who said something, of late: {worker, when, when it last had a call there or 0, what waits}.
local said, idle, others, called = {}, -1, {}, 0
for _, one in ipairs(row[8]) do
  if one[1] == worker then
    called = one[3]
  elseif one[2] + ttl > q.now then
    said[#said + 1], others[#others + 1] = one, one[4]
    if one[3] > 0 and (idle < 0 or q.now - one[3] < idle) then
      idle = q.now - one[3]
    end
  end
end
said[#said + 1] = {worker, q.now, busy > 0 and q.now or called, waiting}
row[8] = said
write.timed(q, 'mem:' .. endpoint, cmsgpack.pack(row), int(math.ceil(ttl / 1000)))
ctx.commit(q)
return {row[1], row[3], int(row[4]), row[5], row[6], int(q.now - row[7]), int(idle), others}

end
redis.register_function{function_name='hostler1_share', callback=verb_share, flags={}}
local function verb_stats(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local most = tonumber(argv[1])
-- The queue's scalars and what follows from its indexes.
-- keys meta
-- args most:int
-- flags no-writes
-- reply {{name, value, ...}, lanes, tenants, workers, unworkable ready jobs, oldest ready at or 0}
-- The oldest is looked for among the heads of the lines of at most `most` tenants and 16 of their lanes each.
local q = ctx.open(meta_key)
local scalars = {}
for _, name in ipairs(META) do
  scalars[#scalars + 1] = name
  scalars[#scalars + 1] = TEXT[name] and (q.m[name] or '') or int(q.m[name])
end
local marked, unworkable = redis.call('HKEYS', q.p .. 'un'), 0
for first = 1, #marked, 1000 do
  local some = {unpack(marked, first, math.min(first + 999, #marked))}
  for _, count in ipairs(redis.call('HMGET', q.p .. 'lr', unpack(some))) do
    unworkable = unworkable + tonumber(count or '0')
  end
end
local seqs = {}
for _, tenant in ipairs(redis.call('ZRANGE', q.p .. 'TN', 0, most - 1)) do
  for _, lane in ipairs(redis.call('ZRANGE', q.p .. 'tl:' .. tenant, 0, 15)) do
    local head = redis.call('ZRANGE', q.p .. 'r:' .. lane .. ':' .. tenant, 0, 0)[1]
    seqs[#seqs + 1] = head and string.match(head, '^%d+')
  end
end
local oldest = 0
for first = 1, #seqs, 1000 do
  for _, record in ipairs(rec.many(q, {unpack(seqs, first, math.min(first + 999, #seqs))})) do
    if record and (oldest == 0 or record[13] < oldest) then
      oldest = record[13]
    end
  end
end
local workers = 0
for _ in pairs(class.workers(q)) do
  workers = workers + 1
end
local live = redis.call('HLEN', q.p .. 'lc')
return {scalars, live, redis.call('HLEN', q.p .. 'td'), workers, unworkable, int(oldest)}

end
redis.register_function{function_name='hostler1_stats', callback=verb_stats, flags={'no-writes'}}
local function verb_submit(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local jobs = cmsgpack.unpack(argv[1])
  local lanes_given = cmsgpack.unpack(argv[2])
  local operations = cmsgpack.unpack(argv[3])
  local spread = tonumber(argv[4])
  local envelopes = tail(argv, 5)
-- Store jobs durably, each judged by itself, with one event each; the refused leave no trace.
-- keys  meta
-- args  jobs:pack lanes_given:pack operations:pack spread:int *envelopes:blob
-- reply {now, code, seq, code, seq, ...}; 1 stored, 2 known, 3 other body, 4 depth, 5 bytes, 6 tenant, 7 lanes, 8 draining,
-- 9 an operation that once had another number of jobs, 10 closed, or keys are not spread over `spread` shards
-- A job is {lane (from 1), tenant, priority, key, delay, run_at, deadline, queue wait or -1, attempts, crashes,
-- overloads, size, idempotency key, hash of the body, affinity}; operations are id, number of jobs, id, number of jobs, ...
local q = ctx.open(meta_key)
local cfg, answers = ctx.config(q), {}
local replays, given = submit.replays(q, operations), {}
local known = submit.known(q, jobs)
local depths = submit.depths(q, cfg, jobs)
local found = lanes.look_up(q, lanes_given)
local at = 0
for n = 1, #operations, 2 do
  local past, mine, stored = replays[n] or given[operations[n]], {}, false
  for i = 1, operations[n + 1] do
    local job, code, seq = jobs[at + i], nil, nil
    if past and #past ~= 2 * operations[n + 1] then
      code = 9
    elseif past then
      code, seq = past[2 * i - 1], past[2 * i]
    else
      code, seq = submit.judge(q, cfg, job, known, depths, spread)
      local lane = not code and lanes.number(q, found, job[1])
      if lane then
        code, seq = 1, submit.store(q, cfg, job, lane, envelopes[at + i], known)
      end
      code = code or 7
      stored = stored or code <= 2
    end
    mine[#mine + 1] = code
    mine[#mine + 1] = seq or ''
  end
  if stored and operations[n] ~= '' then
    write.timed(q, 'op:' .. operations[n], cmsgpack.pack(mine), cfg[15])
    given[operations[n]] = mine
  end
  for _, word in ipairs(mine) do
    answers[#answers + 1] = word
  end
  at = at + operations[n + 1]
end
ctx.commit(q)
return {q.now, answers}

end
redis.register_function{function_name='hostler1_submit', callback=verb_submit, flags={}}
local function verb_tick(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local roll = tonumber(argv[1])
-- Do one slice of upkeep; at most every half second, unless the last one left work behind.
-- keys  meta
-- args  roll:int
-- flags allow-oom
-- reply {1 when more is left to do at once, 2 when the last one is fresh, else 0; microseconds to a job that may be due}
-- `roll` is that of the registry when workers were looked up for this round; -1 when they did not have to be, -2 when
-- they could not be.
local q = ctx.open(meta_key)
if q.m.tick > 0 and q.now - q.m.tick < 500000 then
  return {2, -1}
end
q.m.turn = 0
if roll ~= -1 then
  q.m.roll, q.m.mustered = roll, roll < 0 and 0 or q.now
end
local cfg = ctx.config(q)
if upkeep.grace(q) then
  q.m.tick = q.now - 500000
  ctx.commit(q)
  return {1, due.left(q)}
end
local most = math.max(due.promote(q, 100), due.reap(q, 100), upkeep.escalate(q), upkeep.expire(q), upkeep.retire(q, cfg))
apart.wake(q)
ctx.commit(q)
local more = most >= 100
if q.m.cursor ~= 0 or q.now - q.m.sweep >= 1000000 then
  if q.m.cursor == 0 then
    q.m.sweep = q.now
    sweep.passes(q)
    upkeep.trim(q, cfg)
  end
  local known, going = sweep.workers(q)
  more = sweep.lanes(q, known, 100) or going or more
end
q.m.tick = more and q.now - 500000 or q.now
ctx.commit(q)
return {more and 1 or 0, due.left(q)}

end
redis.register_function{function_name='hostler1_tick', callback=verb_tick, flags={'allow-oom'}}
local function verb_timeline(keys, argv)
  local meta_key = keys[1]
  ctx.writes = false
  local seq = argv[1]
  local most = tonumber(argv[2])
-- The stream entries that hold the events of one job.
-- keys meta
-- args seq:text most:int
-- flags no-writes
-- reply {1, {id, packed entry, ...}, {offset, ...}, epoch, {life, ...}}, or {0} when there is no such job
-- Moves are found by their offsets. Progress and refusals, which the record does not list, are looked for among
-- at most `most` entries that follow a claim, the latest claim first; the latest progress is always found.
local q = ctx.open(meta_key)
local record = rec.one(q, seq)
if not record then
  return {0}
end
local stream, number = q.p .. 'ev', tonumber(seq) - SEQ_BASE
local entries, offsets, have, claims = {}, {}, {}, {}

local function add(entry)
  if not have[entry[1]] then
    have[entry[1]] = true
    entries[#entries + 1] = entry[1]
    entries[#entries + 1] = entry[2][2]
  end
end

local function at(offset)
  local entry = redis.call('XREVRANGE', stream, int(offset) .. '-0', '-', 'COUNT', 1)[1]
  if entry then
    add(entry)
    local event = cmsgpack.unpack(entry[2][2])[2][offset - tonumber(string.match(entry[1], '^%d+')) + 1]
    return event and event[1] == 2
  end
  return false
end

for i, offset in ipairs(record[24]) do
  offsets[i] = int(offset)
  if at(offset) then
    claims[#claims + 1] = i
  end
end
for i = #claims, 1, -1 do
  local from, to = record[24][claims[i]], record[24][claims[i] + 1]
  local got = most > 0 and redis.call(
    'XRANGE', stream, int(from + 1) .. '-0', to and int(to - 1) .. '-0' or '+', 'COUNT', most
  ) or {}
  most = most - #got
  for _, entry in ipairs(got) do
    for _, event in ipairs(cmsgpack.unpack(entry[2][2])[2]) do
      if event[2] == number then
        add(entry)
      end
    end
  end
end
local progress = life.remotes(q, {seq})[seq]
if progress[5] > 0 then
  at(progress[5])
end
return {1, entries, offsets, q.m.epoch, redis.call('ZRANGE', q.p .. 'epochs', 0, -1)}

end
redis.register_function{function_name='hostler1_timeline', callback=verb_timeline, flags={'no-writes'}}
local function verb_wake(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local seq = argv[1]
  local operation = argv[2]
  local reason = argv[3]
-- Make a scheduled or waiting job ready now.
-- keys meta
-- args seq:text operation:text reason:text
-- flags allow-oom
-- reply {1, state} done, {2, state} it does not wait, {0} no such job
local q = ctx.open(meta_key)
local fence, past = ops.promised(q, operation)
local record = rec.one(q, seq)
local waits = record and (record[1] == 1 or record[1] == 4)
if past and not (waits and record[6] == fence) then
  return past
elseif not record then
  return {0}
elseif not waits then
  return {2, record[1]}
end
local answer = ops.promise(q, operation, record[6], {1, 2})
life.leave(q, seq, record)
life.ready(q, 9, seq, record, ops.facts(reason))
ctx.commit(q)
return answer

end
redis.register_function{function_name='hostler1_wake', callback=verb_wake, flags={'allow-oom'}}
local function verb_withdraw(keys, argv)
  local meta_key = keys[1]
  ctx.writes = true
  local worker = argv[1]
  local state = argv[2]
  local reason = argv[3]
-- A worker leaves; its leases are not touched.
-- keys meta
-- args worker:text state:text reason:text
-- flags allow-oom
-- reply 1 when it was live, else 0
local q = ctx.open(meta_key)
local row = staff.row(q, worker)
if not row or not staff.alive(q, worker) then
  return 0
end
staff.bury(q, worker, row, state, reason, q.now)
ctx.commit(q)
return 1

end
redis.register_function{function_name='hostler1_withdraw', callback=verb_withdraw, flags={'allow-oom'}}
redis.register_function{function_name='hostler1_version', callback=function() return '239a80c4870a5fd11526063fc3f4b9b6178c79d692a3b7f05e6f7492ec259a3e' end, flags={'no-writes'}}
