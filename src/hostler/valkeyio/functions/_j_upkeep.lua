-- Upkeep of jobs: grace after a restart, expiry, escalated cancels, retention. Slices, never everything.

local upkeep = {}
local SLICE = 100
local GRACED = 500

-- Extend these leases; those that ended meanwhile are left out.
local function extend(q, seqs)
  local ends, words = redis.call('ZMSCORE', q.p .. 'leases', unpack(seqs)), {}
  for i, record in ipairs(rec.many(q, seqs)) do
    if record and ends[i] then
      words[#words + 1] = math.max(tonumber(ends[i]), q.now + record[F.lease])
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
    if record and record[F.state] == S.running and record[F.cancel] > 0 then
      local g = progress[seq]
      life.attempt(q, seq, record, 'cancel', false, false, g[G.endpoint], g[G.remote])
      life.finish(q, V.cancel, seq, record, S.cancelled)
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
    local ends = record and record[F.finished] == 0 and life.ends(record)
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
    if record and record[F.finished] > 0 then
      rec.uncount(q, record)
      rec.drop(q, seqs[i])
      q.m.t_purged = q.m.t_purged + 1
    end
  end
  return #seqs
end

-- Forget jobs that ended long ago, or that are too many.
function upkeep.retire(q, cfg)
  local aged = redis.call('ZRANGE', q.p .. 'done', '-inf', q.now - cfg[C.terminal], 'BYSCORE', 'LIMIT', 0, SLICE)
  if #aged == 0 then
    aged = surplus(q, 'done', cfg[C.terminal_count])
  end
  local dead = redis.call('ZRANGE', q.p .. 'dead', '-inf', q.now - cfg[C.dead], 'BYSCORE', 'LIMIT', 0, SLICE)
  return math.max(purge(q, 'done', aged), purge(q, 'dead', dead))
end

-- Keep the last `events` and at least an hour of them: marks an hour apart say which offsets are that old.
function upkeep.trim(q, cfg)
  if q.now - q.m.mark_at >= 3600000000 then
    q.m.trim_to, q.m.mark_off, q.m.mark_at = q.m.mark_off, q.m.off, q.now
    redis.call('ZREMRANGEBYRANK', q.p .. 'epochs', 0, -EPOCHS_KEPT - 1)
  end
  local first = math.min(q.m.off - cfg[C.events], q.m.trim_to)
  if first > 0 then
    redis.call('XTRIM', q.p .. 'ev', 'MINID', '~', int(first) .. '-0')
  end
end
