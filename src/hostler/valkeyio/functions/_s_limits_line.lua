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
