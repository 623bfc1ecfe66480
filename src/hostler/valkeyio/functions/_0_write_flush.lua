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
