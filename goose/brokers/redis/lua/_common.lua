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

-- Put a job that stands in no line where `when` says: '' is ready now, '+n' in n microseconds,
-- '=n' at that instant. Returns 1 if it is ready. A due job wakes a worker when it is
-- the first, so that somebody learns of the earlier instant.
local function place(ready, scheduled, sleepers, wake, id, when)
  local due = now
  if when ~= '' then
    due = tonumber(string.sub(when, 2))
    if string.sub(when, 1, 1) == '+' then
      due = now + due
    end
  end
  if due <= now then
    redis.call('ZADD', ready, int(back(ready)), id)
    return 1
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
local function promote(scheduled, ready, limit)
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
  return #ids
end
