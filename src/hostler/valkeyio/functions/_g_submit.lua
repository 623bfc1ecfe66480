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
  if cfg[C.tenant_depth] == 0 then
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
  local mine = cfg[C.spread] or 1
  if mine == 0 or (job[4] or job[13]) and spread ~= mine then
    return 10
  elseif q.m.draining == 1 then
    return 8
  elseif cfg[C.depth] > 0 and depth >= cfg[C.depth] then
    return 4
  elseif cfg[C.bytes] > 0 and q.m.bytes + job[12] > cfg[C.bytes] then
    return 5
  elseif cfg[C.tenant_depth] > 0 and depths[job[2]] >= cfg[C.tenant_depth] then
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
  record[F.lane], record[F.tenant], record[F.ckey], record[F.priority] = lane, job[2], job[4], job[3]
  record[F.vt] = q.m.arrival - job[3] * cfg[C.head_start]
  record[F.generation], record[F.size], record[F.events] = 1, job[12], {}
  record[F.created], record[F.ready_at], record[F.deadline] = q.now, start, job[7]
  record[F.queue_until] = job[8] >= 0 and start + job[8] or 0
  record[F.max_attempts], record[F.max_crashes], record[F.max_overloads] = job[9], job[10], job[11]
  record[F.affinity] = job[15]
  write.put(q, 'p:' .. seq, envelope)
  local facts = {tenant = job[2], priority = job[3]}
  if start > q.now then
    life.schedule(q, V.submit, seq, record, start, facts)
  else
    life.ready(q, V.submit, seq, record, facts)
  end
  life.count(q, record, 1)
  if record[F.deadline] > 0 or record[F.queue_until] > 0 then
    ctx.expires(q, life.ends(record), seq)
  end
  if job[13] and cfg[C.idempotency] > 0 then
    known[job[2] .. ':' .. job[13]] = {seq, job[14]}
    write.timed(q, 'i:' .. job[2] .. ':' .. job[13], cmsgpack.pack({seq, job[14]}), cfg[C.idempotency])
  end
  q.m.t_submitted = q.m.t_submitted + 1
  return seq
end
