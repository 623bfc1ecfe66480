-- Compare where these jobs are found with where their records say they are.
-- keys meta
-- args repair:flag *seqs:text
-- flags allow-oom
-- reply list of sentences
local q = ctx.open(meta_key)
local found, scores, records = {}, audit.scores(q, seqs), rec.many(q, seqs)
for i, seq in ipairs(seqs) do
  local record = records[i]
  local places = record and audit.places(q, record) or {}
  local state = record and STATES[record[F.state]] or 'not there'
  for _, name in ipairs(audit.INDEXES) do
    local is, should = scores[name][i] and tonumber(scores[name][i]), places[name]
    if is and not should then
      found[#found + 1] = 'job ' .. seq .. ' is ' .. state .. ' but listed in ' .. name
      write.zrem(q, name, seq)
    elseif should and (not is or (is ~= should and name ~= 'leases')) then
      found[#found + 1] = 'job ' .. seq .. ' is ' .. state .. ' but not in its place in ' .. name
      write.zadd(q, name, should == math.huge and 'inf' or should, seq)
      audit.due(q, name, should, seq)
    end
  end
  if record and record[F.state] == S.ready then
    local key, member = audit.line(seq, record)
    local is = redis.call('ZSCORE', q.p .. key, member)
    if not is or tonumber(is) ~= record[F.vt] then
      found[#found + 1] = 'job ' .. seq .. ' is ready but not in its place in ' .. key
      if record[F.parked] == 1 then
        write.zadd(q, key, record[F.vt], seq)
      else
        line.place(q, seq, record)
      end
    end
  elseif not record then
    local left = {}
    for _, kind in ipairs({'p:', 'a:', 'g:', 'c:', 's:', 'pv:'}) do
      left[#left + 1] = q.p .. kind .. seq
    end
    if redis.call('EXISTS', unpack(left)) > 0 then
      found[#found + 1] = 'job ' .. seq .. ' is not there but something of it is kept'
      rec.drop(q, seq)
    end
  end
end
if repair then
  ctx.commit(q)
end
return found
