-- Choosing among endpoints that have room: within a bound where its session ran last, or where its model is;
-- else the least loaded. As `policy.balance`.
-- All amounts are whole thousandths.

local choice = {}
local BOUND = 1.25

-- The models that a lane names, nil when no offer says anything about its memory.
function choice.models(state, row)
  if state.memory == nil then
    state.memory = false
    for _, standing in ipairs(state.standings) do
      state.memory = state.memory or standing[2] or standing[3]
    end
  end
  if not state.memory then
    return nil
  end
  local needs = cmsgpack.unpack(row[L.lane]).needs
  return needs and needs.models
end

local function within(models, list)
  local has = {}
  for _, model in ipairs(list or {}) do
    has[model] = true
  end
  for _, model in ipairs(models) do
    if not has[model] then
      return false
    end
  end
  return true
end

-- What a way {offer index, wants} is judged by; `slots` is the field of the endpoint's slots, if it has any.
-- A standing is {weight, models in memory, models that may be loaded, endpoint}, false for what is not said.
-- An endpoint among the workers that a lane excludes is never taken (`kept`), among those that it shuns last.
function choice.weigh(state, way, slots, models, row)
  local standing = state.standings[way[1] + 1]
  way.field, way.weight = slots, standing and standing[1] or 1000
  if not standing then
    return way
  end
  way.endpoint = standing[4]
  if models then
    way.warm = within(models, standing[2])
    way.cold = standing[2] and not way.warm
    way.kept = standing[3] and not way.warm and not within(models, standing[3])
  end
  if standing[4] and (#row[L.avoid] > 0 or #row[L.shun] > 0) then
    way.kept = way.kept or class.among(row[L.avoid], standing[4])
    way.shunned = class.among(row[L.shun], standing[4])
  end
  return way
end

local function load_of(state, way)
  if not way.field then
    return 0, 1000
  end
  return state.used[way.field], math.max(1, state.totals[way.field])
end

-- Without those that are shunned, unless nothing else is left.
local function spared(ways)
  local rest = {}
  for _, way in ipairs(ways) do
    if not way.shunned then
      rest[#rest + 1] = way
    end
  end
  return #rest > 0 and rest or ways
end

-- How much an endpoint is preferred whatever it costs, while that leaves it within its bound.
local function rank_of(way, home, most)
  local rank = home and way.endpoint == home and not way.cold and 2 or way.warm and 1 or 0
  return rank > 0 and way.out + 1000 <= most and rank or 0
end

-- The best of the ways that have room; there is at least one.
function choice.best(state, fit, home)
  local ways = #fit == 1 and fit or spared(fit)
  if #ways == 1 then
    return ways[1]
  end
  local total, all = 1000, 0
  for _, way in ipairs(ways) do
    way.out, way.slots = load_of(state, way)
    total, all = total + way.out, all + way.slots
  end
  local best, cheapest, best_rank
  for _, way in ipairs(ways) do
    local rank = rank_of(way, home, 1000 * math.ceil(BOUND * total * way.slots / all / 1000))
    local cost = (way.out + 1000) * way.weight / way.slots
    if not best or rank > best_rank or (rank == best_rank and cost < cheapest) then
      best, cheapest, best_rank = way, cost, rank
    end
  end
  return best
end
