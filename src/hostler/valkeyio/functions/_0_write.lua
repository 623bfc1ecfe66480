-- Writes are collected while a call decides, and made at its end: one engine call per key or command.

local ctx, rec, events, line, locks = {}, {}, {}, {}, {}
local wake, lanes, class, room, pick, life = {}, {}, {}, {}, {}, {}
local write = {}

function write.begin(q)
  q.sets, q.hsets, q.drops, q.z, q.bumps, q.pushes, q.timed = {}, {}, {}, {}, {}, {}, {}
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

function write.drop(q, key)
  q.drops[#q.drops + 1] = q.p .. key
end

-- Store a value for some milliseconds.
function write.timed(q, key, value, ms)
  q.timed[#q.timed + 1] = {q.p .. key, value, ms}
end

function write.push(q, key, value)
  q.pushes[#q.pushes + 1] = {q.p .. key, value}
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

function write.rest(q)
  for _, push in ipairs(q.pushes) do
    redis.call('RPUSH', push[1], push[2])
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
  if #q.drops > 0 then
    redis.call('UNLINK', unpack(q.drops))
  end
end
