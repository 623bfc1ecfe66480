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
