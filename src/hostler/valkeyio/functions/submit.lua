-- Store jobs durably, each judged by itself, with one event each; the refused leave no trace.
-- keys  meta
-- args  jobs:pack lanes_given:pack operations:pack spread:int *envelopes:blob
-- reply {now, code, seq, code, seq, ...}; 1 stored, 2 known, 3 other body, 4 depth, 5 bytes, 6 tenant, 7 lanes, 8 draining,
-- 9 an operation that once had another number of jobs, 10 closed, or keys are not spread over `spread` shards
-- A job is {lane (from 1), tenant, priority, key, delay, run_at, deadline, queue wait or -1, attempts, crashes,
-- overloads, size, idempotency key, hash of the body, affinity}; operations are id, number of jobs, id, number of jobs, ...
local q = ctx.open(meta_key)
local cfg, answers = ctx.config(q), {}
local replays, given = submit.replays(q, operations), {}
local known = submit.known(q, jobs)
local depths = submit.depths(q, cfg, jobs)
local found = lanes.look_up(q, lanes_given)
local at = 0
for n = 1, #operations, 2 do
  local past, mine, stored = replays[n] or given[operations[n]], {}, false
  for i = 1, operations[n + 1] do
    local job, code, seq = jobs[at + i], nil, nil
    if past and #past ~= 2 * operations[n + 1] then
      code = 9
    elseif past then
      code, seq = past[2 * i - 1], past[2 * i]
    else
      code, seq = submit.judge(q, cfg, job, known, depths, spread)
      local lane = not code and lanes.number(q, found, job[1])
      if lane then
        code, seq = 1, submit.store(q, cfg, job, lane, envelopes[at + i], known)
      end
      code = code or 7
      stored = stored or code <= 2
    end
    mine[#mine + 1] = code
    mine[#mine + 1] = seq or ''
  end
  if stored and operations[n] ~= '' then
    write.timed(q, 'op:' .. operations[n], cmsgpack.pack(mine), cfg[C.operations])
    given[operations[n]] = mine
  end
  for _, word in ipairs(mine) do
    answers[#answers + 1] = word
  end
  at = at + operations[n + 1]
end
ctx.commit(q)
return {q.now, answers}
