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
