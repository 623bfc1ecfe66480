-- Drop results by what their keys begin with, a slice at a time.
-- keys meta
-- args cursor:text prefix:text
-- flags allow-oom
-- reply {next cursor ('0': that was all), how many were dropped}
local q = ctx.open(meta_key)
local scanned = redis.call('ZSCAN', q.p .. 'rends', cursor, 'COUNT', 200)
local dropped, seen = 0, {}
for i = 1, #scanned[2], 2 do
  local key = scanned[2][i]
  if string.sub(key, 1, #prefix) == prefix and not seen[key] then
    seen[key] = true
    results.forget(q, key)
    dropped = dropped + 1
  end
end
ctx.commit(q)
return {scanned[1], dropped}
