-- An operator says that calls may go again: what a service said is forgotten, what was used is not.
-- keys meta
-- args name:text reason:text
-- reply microseconds for which nobody could have gone
local q = ctx.open(meta_key)
local row = limits.row(q, name)
local left = math.max(0, row[2] - q.now)
if left > 0 then
  row[2], row[5] = 0, 0
  limits.keep(q, name, row)
  events.say(q, 'limit', false, nil, false, {limit = name, to = 'lifted', reason = reason ~= '' and reason or nil})
  ctx.commit(q)
end
return int(left)
