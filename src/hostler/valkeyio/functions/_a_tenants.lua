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
