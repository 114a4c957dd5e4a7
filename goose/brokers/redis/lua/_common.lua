-- _common.lua: what the verbs share; put before each of them when it is loaded.
--
-- Instants are whole microseconds of the server's clock, which a double holds exactly. A ready
-- job's score is the instant it became ready, so the line is in the order of ADR 2 by itself.
-- Whatever needs memory is written before anything is removed: a server that is full refuses
-- the first write of a script, and then nothing has happened.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- A number as redis.call takes it, digit for digit.
local function int(number)
  return string.format('%.0f', number)
end

-- Receipts are '<instant>.<number>:<ready since>', with a fixed number of digits each, so that
-- they sort as they were given out. Returns what the receipts of this call begin with, an instant
-- that no call had before.
local FIRST = 1000
local function new_receipts(key)
  local last = redis.call('GET', key)
  local instant = int(now)
  if last and tonumber(last) >= now then
    instant = int(tonumber(last) + 1)
  end
  return instant
end

-- The score of the next job at the back of a line: later than all that is there, also when
-- the clock was set back.
local function back(ready)
  local last = redis.call('ZRANGE', ready, -1, -1, 'WITHSCORES')
  if last[2] and tonumber(last[2]) >= now then
    return tonumber(last[2]) + 1
  end
  return now
end

-- Wake as many sleeping workers as there are new jobs, and no more. A token that is there
-- already will wake one of them too.
local function signal(sleepers, wake, jobs)
  if jobs <= 0 or redis.call('EXISTS', sleepers) == 0 then
    return
  end
  redis.call('ZREMRANGEBYSCORE', sleepers, '-inf', int(now))
  local asleep = redis.call('ZCARD', sleepers)
  local tokens = redis.call('LLEN', wake)
  if tokens > asleep then
    redis.call('LTRIM', wake, 0, asleep - 1)
  end
  for _ = 1, math.min(jobs, asleep - tokens) do
    redis.call('RPUSH', wake, '1')
  end
end

-- Groups take turns (ADR 23). While a job with a group is ready in a queue, what gets ready there
-- stands not only in `ready` but also in `turns` (zset id -> place), and `groups` (zset group ->
-- turn of its last job) says where each goes on. A place is a whole turn times TURN; one that was
-- given back stands a little before that, still in the same turn. `grouped` is there where a job with
-- a group is due later. These three are named as `ready`, with their word behind it.
local TURN = 1048576

-- The turn of the job at the head of `turns`, or 0.
local function head_turn(turns)
  local head = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')[2]
  return math.ceil(tonumber(head or 0) / TURN)
end

-- The group of a stored job, or nil.
local function group_of(value)
  if string.sub(value, 1, 2) == '::' then
    return nil
  end
  local length, at = string.match(value, '^%d*:(%d*):()')
  if not length or length == '' then
    return nil
  end
  return string.sub(value, at, at + tonumber(length) - 1)
end

-- Give a job that is ready its turn, if groups take turns in its queue.
local function stand(ready, id, value)
  local turns, groups = ready .. ':turns', ready .. ':groups'
  local group = group_of(value)
  if not group and redis.call('EXISTS', turns) == 0 then
    return
  end
  local name = group and '=' .. group or ''
  local turn = head_turn(turns)
  local last = redis.call('ZSCORE', groups, name)
  if last and tonumber(last) >= turn then
    turn = tonumber(last) + 1
  end
  redis.call('ZADD', groups, int(turn), name)
  redis.call('ZADD', turns, int(turn * TURN), id)
end

-- Take jobs that are no longer ready out of the turns.
local function leave(ready, ids)
  local turns = ready .. ':turns'
  if #ids == 0 or redis.call('EXISTS', turns) == 0 then
    return
  end
  redis.call('ZREM', turns, unpack(ids))
  if redis.call('EXISTS', turns) == 1 then
    -- Whoever is behind the head begins at the head again.
    redis.call('ZREMRANGEBYSCORE', ready .. ':groups', '-inf', '(' .. int(head_turn(turns)))
  else
    redis.call('DEL', ready .. ':groups')
  end
end

-- Put a job that stands in no line where `when` says: '' is ready now, '+n' in n microseconds,
-- '=n' at that instant. Returns 1 if it is ready. A due job wakes a worker when it is
-- the first, so that somebody learns of the earlier instant.
local function place(ready, scheduled, sleepers, wake, id, value, when)
  local due = now
  if when ~= '' then
    due = tonumber(string.sub(when, 2))
    if string.sub(when, 1, 1) == '+' then
      due = now + due
    end
  end
  if due <= now then
    redis.call('ZADD', ready, int(back(ready)), id)
    stand(ready, id, value)
    return 1
  end
  if group_of(value) then
    redis.call('SET', ready .. ':grouped', '1')
  end
  local first = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
  redis.call('ZADD', scheduled, int(due), id)
  if not first[2] or due < tonumber(first[2]) then
    signal(sleepers, wake, 1)
  end
  return 0
end

-- The stored form of a job that is due later says since when it waits.
local function stamped(value, when)
  if when == '' then
    return value
  end
  return int(now) .. value
end

-- Move up to `limit` due jobs of a queue into its line, each at its instant. Returns how many.
local function promote(jobs, scheduled, ready, limit)
  local due = redis.call('ZRANGEBYSCORE', scheduled, '-inf', int(now), 'WITHSCORES', 'LIMIT', 0, limit)
  if #due == 0 then
    return 0
  end
  local pairs_, ids = {}, {}
  for i = 1, #due, 2 do
    pairs_[i] = due[i + 1]
    pairs_[i + 1] = due[i]
    ids[#ids + 1] = due[i]
  end
  redis.call('ZADD', ready, unpack(pairs_))
  redis.call('ZREM', scheduled, unpack(ids))
  if redis.call('EXISTS', ready .. ':grouped', ready .. ':turns') > 0 then
    for n, value in ipairs(redis.call('HMGET', jobs, unpack(ids))) do
      stand(ready, ids[n], value or '::')
    end
  end
  return #ids
end
