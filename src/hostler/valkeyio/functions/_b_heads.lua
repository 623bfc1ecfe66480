-- Choosing, second half: which job of a tenant is next, over all lanes that the class covers.

local heads = {}

function heads.open(tenant)
  return {tenant = tenant, next = 0, size = 8, lanes = {}, done = false, floor = -1, covered = false}
end

local function load(q, c, t, blocked)
  local got = redis.call('ZRANGE', q.p .. 'tl:' .. t.tenant, t.next, t.next + t.size - 1, 'WITHSCORES')
  local n = #got / 2
  t.next = t.next + n
  t.done = n < t.size
  t.size = math.min(t.size * 4, 1000)
  for i = 1, #got, 2 do
    local lane = tonumber(got[i])
    t.floor = tonumber(got[i + 1])
    if c.offers[lane] then
      t.covered = true
      if not blocked[lane] then
        t.lanes[#t.lanes + 1] = {lane = lane, vt = t.floor, items = {}, at = 1, from = 0, peek = 2}
      end
    end
  end
end

-- The head member of a lane, read in growing steps; false when the lane holds no more.
function heads.head(q, t, leaf, most)
  if leaf.items[leaf.at] == nil and not leaf.done then
    local key = q.p .. 'r:' .. leaf.lane .. ':' .. t.tenant
    local got = redis.call('ZRANGE', key, leaf.from, leaf.from + leaf.peek - 1, 'WITHSCORES')
    leaf.done = #got / 2 < leaf.peek
    leaf.from = leaf.from + #got / 2
    leaf.peek = math.min(most + 1, 100)
    leaf.items, leaf.at = {}, 1
    for i = 1, #got, 2 do
      leaf.items[#leaf.items + 1] = {got[i], tonumber(got[i + 1])}
    end
  end
  local item = leaf.items[leaf.at]
  leaf.vt = item and item[2]
  return item and item[1]
end

-- Go on behind the head.
function heads.advance(q, t, leaf, most)
  leaf.at = leaf.at + 1
  leaf.used = true
  return heads.head(q, t, leaf, most)
end

-- The lane whose head came first; equal arrivals go by job number, which counts up.
function heads.best(q, c, t, blocked, most)
  while true do
    local best
    for i = #t.lanes, 1, -1 do
      local leaf = t.lanes[i]
      if blocked[leaf.lane] or not leaf.vt then
        table.remove(t.lanes, i)
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
