-- Store progress, remote ids, checkpoints and previews of leases that are held; each progress is one event.
-- keys  meta
-- args  worker:text items:pack
-- flags allow-oom
-- reply {1 or 0, ...}: whether each lease is held
-- An item is {seq, fence, progress, remote, endpoint, checkpoint, preview}, each of the last five text or false.
local q = ctx.open(meta_key)
local seqs, status = {}, {}
for i, item in ipairs(items) do
  seqs[i] = item[1]
end
local stored = life.remotes(q, seqs)
local records = rec.many(q, seqs)
for i, item in ipairs(items) do
  local record, seq = records[i], seqs[i]
  if record and record[F.state] == S.running and record[F.fence] == item[2] and record[F.worker] == worker then
    status[i] = 1
    local g = stored[seq]
    if item[3] then
      g[G.progress], g[G.fence] = item[3], item[2]
      g[G.offset] = events.say(q, V.progress, seq, record, worker, item[3])
    end
    g[G.remote], g[G.endpoint] = item[4] or g[G.remote], item[5] or g[G.endpoint]
    if item[6] then
      write.put(q, 'c:' .. seq, item[6])
    end
    if item[7] then
      write.timed(q, 'pv:' .. seq, item[7], PREVIEW_MS)
    end
    g.touched = true
  else
    status[i] = 0
    settle.reject(q, seq, record, item[2], worker)
  end
end
for seq, g in pairs(stored) do
  if g.touched then
    g.touched = nil
    write.put(q, 'g:' .. seq, cmsgpack.pack(g))
  end
end
ctx.commit(q)
return status
