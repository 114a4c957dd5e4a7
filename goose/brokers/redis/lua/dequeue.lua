-- dequeue.lua: lend ready jobs to a living session, queue by queue in the order given.
-- KEYS  1 sessions (zset session -> deadline)   2 holders (set of sessions with loans)
--       3 held (hash queue/id -> receipt, of this session)   4 receipt (the latest one)
--       then for each queue: jobs, ready, sleepers, wake, scheduled, first (zset id -> turn)
-- ARGV  1 session   2 jobs at most   3 microseconds it will sleep if there are none
--       4 its name as a sleeper   5 '1' if it slept until now   6... queues
-- Returns -1 if the session does not live, else {microseconds until a job is due or -1, and for
-- each job: number of its queue, id, receipt, job}. Atomic: what is returned is lent, and
-- nothing else is. At most `jobs at most` jobs and about a megabyte of them.

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return -1
end
local limit, sleep = math.min(tonumber(ARGV[2]), 5000), tonumber(ARGV[3])
local CHUNK, BYTES = 50, 1048576
local taken, bytes, answer, size = 0, 0, { -1 }, 1
local instant = new_receipts(KEYS[4])

-- An instant in 16 digits; servers give it so, imitations of them perhaps not.
local function digits(score)
  if #score == 16 then
    return score
  end
  return string.format('%016.0f', tonumber(score))
end

-- Lend the ids of one chunk, whose instants are known; returns those that left the line.
local function lend(number, jobs, ids, since, mark)
  local values = redis.call('HMGET', jobs, unpack(ids))
  local queue = ARGV[5 + number] .. '/'
  local left, loans, count = {}, {}, 0
  for i = 1, #ids do
    if bytes > BYTES then
      break
    end
    local id, value = ids[i], values[i]
    left[i] = id
    -- An id without a job can only stem from a hand that deleted keys: it is dropped.
    if value then
      local loan = instant .. '.' .. (FIRST + taken) .. ':' .. since[i] .. mark
      taken = taken + 1
      bytes = bytes + #value
      loans[count + 1] = queue .. id
      loans[count + 2] = loan
      count = count + 2
      answer[size + 1] = number
      answer[size + 2] = id
      answer[size + 3] = loan
      answer[size + 4] = value
      size = size + 4
    end
  end
  if count > 0 then
    redis.call('HSET', KEYS[3], unpack(loans))
  end
  return left
end

-- Lend from a zset that says in which order ready jobs come: `first`, with those put first by hand
-- or given back after that, or the turns of groups.
local function take_by(order, number, jobs, ready, mark)
  while taken < limit and bytes <= BYTES do
    local ids = redis.call('ZRANGE', order, 0, math.min(limit - taken, CHUNK) - 1)
    if #ids == 0 then
      return
    end
    local there, since, gone = {}, {}, {}
    for _, id in ipairs(ids) do
      local at = redis.call('ZSCORE', ready, id)
      if at then
        there[#there + 1] = id
        since[#since + 1] = digits(at)
      else
        gone[#gone + 1] = id
      end
    end
    if #there > 0 then
      there = lend(number, jobs, there, since, mark)
      redis.call('ZREM', ready, unpack(there))
      leave(ready, there)
      redis.call('ZREM', order, unpack(there))
    end
    if #gone > 0 then
      leave(ready, gone)
      redis.call('ZREM', order, unpack(gone))
    end
  end
end

-- Lend jobs that were ready before the first one with a group came, and so have no turn. They are
-- the first of the line, but for jobs with a turn that were due before: of these it passes some
-- hundred, and then the turns go on.
local function take_without_turn(number, jobs, ready, turns)
  local left = redis.call('ZCARD', ready) - redis.call('ZCARD', turns)
  local passed = 0
  while left > 0 and passed < 10 * CHUNK and taken < limit and bytes <= BYTES do
    local found = redis.call('ZRANGE', ready, passed, passed + CHUNK - 1, 'WITHSCORES')
    local ids, since = {}, {}
    for i = 1, #found, 2 do
      if redis.call('ZSCORE', turns, found[i]) then
        passed = passed + 1
      elseif #ids < limit - taken then
        ids[#ids + 1] = found[i]
        since[#since + 1] = digits(found[i + 1])
      end
    end
    if #found == 0 then
      return
    end
    if #ids > 0 then
      ids = lend(number, jobs, ids, since, '')
      redis.call('ZREM', ready, unpack(ids))
      left = left - #ids
    end
  end
end

local function take(number, jobs, ready)
  while taken < limit and bytes <= BYTES do
    local found = redis.call('ZRANGE', ready, 0, math.min(limit - taken, CHUNK) - 1, 'WITHSCORES')
    if #found == 0 then
      return
    end
    local ids, since = {}, {}
    local count = #found / 2
    for i = 1, count do
      ids[i] = found[2 * i - 1]
      since[i] = digits(found[2 * i])
    end
    redis.call('ZREM', ready, unpack(lend(number, jobs, ids, since, '')))
  end
end

local next_due
for number = 1, #ARGV - 5 do
  local at = 5 + (number - 1) * 6
  local jobs, ready, sleepers, wake = KEYS[at], KEYS[at + 1], KEYS[at + 2], KEYS[at + 3]
  local scheduled, first = KEYS[at + 4], KEYS[at + 5]
  local before = taken
  local turns = ready .. ':turns'
  local promoted = promote(jobs, scheduled, ready, 100)
  if taken < limit then
    if redis.call('EXISTS', first) == 1 then
      take_by(first, number, jobs, ready, '!')
    end
    if redis.call('EXISTS', turns) == 1 then
      take_without_turn(number, jobs, ready, turns)
      take_by(turns, number, jobs, ready, '~')
    else
      take(number, jobs, ready)
    end
  end
  signal(sleepers, wake, promoted - (taken - before))
  if taken == 0 then
    local due = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2]
    if due and (not next_due or tonumber(due) < next_due) then
      next_due = tonumber(due)
    end
  end
end

if taken > 0 then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('SET', KEYS[4], instant)
end
if taken == 0 and sleep > 0 then
  for number = 1, #ARGV - 5 do
    redis.call('ZADD', KEYS[7 + (number - 1) * 6], int(now + sleep), ARGV[4])
  end
elseif ARGV[5] == '1' then
  for number = 1, #ARGV - 5 do
    redis.call('ZREM', KEYS[7 + (number - 1) * 6], ARGV[4])
  end
end
if taken == 0 and next_due then
  answer[1] = math.max(0, next_due - now)
end
return answer
