-- Workers in front of one endpoint that holds one model at a time say what they do there, and hear what the others do.
-- keys meta
-- args endpoint:text worker:text coming:text loads:blob busy:int waiting:blob ttl:int
-- reply {who decides, the model that is to come or '', loads so far, the models of the latest, who began it, microseconds
-- since then, microseconds since another one had a call there or -1, {what waits for models as another one sees it, ...}}
-- One of them decides which model comes next, for as long as it goes on saying so: the first. `loads` are the models that
-- this one has begun to load since it last said, '' for none.
local q = ctx.open(meta_key)
local packed = redis.call('GET', q.p .. 'mem:' .. endpoint)
local row = packed and cmsgpack.unpack(packed) or {worker, 0, '', 0, '', '', q.now, {}}
if row[1] == worker or row[2] <= q.now then
  row[1], row[2], row[3] = worker, q.now + ttl, coming
end
if loads ~= '' then
  row[4], row[5], row[6], row[7] = row[4] + 1, loads, worker, q.now
end
-- Who said something, of late: {worker, when, when it last had a call there or 0, what waits}.
local said, idle, others, called = {}, -1, {}, 0
for _, one in ipairs(row[8]) do
  if one[1] == worker then
    called = one[3]
  elseif one[2] + ttl > q.now then
    said[#said + 1], others[#others + 1] = one, one[4]
    if one[3] > 0 and (idle < 0 or q.now - one[3] < idle) then
      idle = q.now - one[3]
    end
  end
end
said[#said + 1] = {worker, q.now, busy > 0 and q.now or called, waiting}
row[8] = said
write.timed(q, 'mem:' .. endpoint, cmsgpack.pack(row), int(math.ceil(ttl / 1000)))
ctx.commit(q)
return {row[1], row[3], int(row[4]), row[5], row[6], int(q.now - row[7]), int(idle), others}
