-- Amounts: what a claim may take from the worker's own pools and from those of the offer that fits.
-- All amounts are whole thousandths, so that adding and taking away never drifts.

-- `given` is {own pools, pools of offer 0, of offer 1, ...}, each a list of {name, pool id, total, free or -1}.
function room.open(q, given, standings)
  local fields, seen, state = {}, {}, {free = {}, used = {}, reserved = {}, sets = {}, plans = {}, blocked = {}}
  state.standings, state.totals, state.homes = standings, {}, {}
  for n, pools in ipairs(given) do
    local set = {}
    for _, pool in ipairs(pools) do
      local field = pool[2] .. '|' .. pool[1]
      set[pool[1]] = field
      if not seen[field] then
        seen[field] = pool
        fields[#fields + 1] = field
      elseif pool[4] >= 0 and (seen[field][4] < 0 or pool[4] < seen[field][4]) then
        seen[field] = pool
      end
    end
    state.sets[n] = set
  end
  local used = #fields > 0 and redis.call('HMGET', q.p .. 'use', unpack(fields)) or {}
  for i, field in ipairs(fields) do
    local pool = seen[field]
    state.used[field], state.totals[field] = tonumber(used[i] or '0'), pool[3]
    local free = pool[3] - state.used[field]
    state.free[field] = pool[4] >= 0 and math.min(free, pool[4]) or free
  end
  return state
end

-- For each fitting offer of a lane: its index, what would be taken (field, thousandths, ...), and how it is weighed.
local function plan(state, row, offers)
  local ways, models = {}, choice.models(state, row)
  for _, index in ipairs(offers) do
    local own, theirs, wants = state.sets[1], state.sets[index + 2] or {}, {}
    for i = 1, #row[L.amounts], 2 do
      local name, amount = row[L.amounts][i], row[L.amounts][i + 1]
      if own[name] then
        wants[#wants + 1] = own[name]
        wants[#wants + 1] = amount
      end
      if theirs[name] and theirs[name] ~= own[name] then
        wants[#wants + 1] = theirs[name]
        wants[#wants + 1] = amount
      end
    end
    ways[#ways + 1] = choice.weigh(state, {index, wants}, theirs.slots, models, row)
  end
  return ways
end

-- The best way in which a job of this lane has room now; else nil and the fields that are short.
-- `home` is where its session ran last, if that is known.
function room.place(state, lane, row, offers, home)
  local ways = state.plans[lane]
  if not ways then
    ways = plan(state, row, offers)
    state.plans[lane] = ways
  end
  local short, fit
  for _, way in ipairs(ways) do
    local wants, fits = way[2], not way.kept
    for i = 1, #wants, 2 do
      if state.reserved[wants[i]] or state.free[wants[i]] < wants[i + 1] then
        fits, short = false, short or {}
        short[#short + 1] = wants[i]
      end
    end
    if fits then
      fit = fit or {}
      fit[#fit + 1] = way
    end
  end
  return fit and choice.best(state, fit, home), short or {}
end

-- Take what a way says.
function room.take(q, state, way)
  for i = 1, #way[2], 2 do
    local field, amount = way[2][i], way[2][i + 1]
    state.free[field], state.used[field] = state.free[field] - amount, state.used[field] + amount
    write.bump(q, 'use', field, amount)
  end
end

-- Keep these pools for a big job that waited long enough: nothing behind it takes from them in this claim.
function room.reserve(state, short)
  for _, field in ipairs(short) do
    state.reserved[field] = true
  end
end

-- Give back what a job took.
function room.give(q, record)
  local taken = record[F.taken]
  for i = 1, #(taken or {}), 2 do
    write.bump(q, 'use', taken[i], -taken[i + 1])
    if string.sub(taken[i], 1, #record[F.worker] + 1) ~= record[F.worker] .. '|' then
      q.freed = (q.freed or 0) + 1
    end
  end
  record[F.taken] = false
end
