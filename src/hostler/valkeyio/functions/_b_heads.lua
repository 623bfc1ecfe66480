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
