-- promote_due.lua: make due jobs ready, and drop dead ones that are too old or too many.
-- KEYS  1 queues   then for each queue: jobs, ready, sleepers, wake, scheduled, dead
-- ARGV  1 jobs at most   2 microseconds dead jobs are kept   3 dead jobs kept in each queue
--       4... queues
-- Returns {promoted, microseconds until the next is due or -1, trimmed}. Atomic. A queue
-- without a job is forgotten.

local limit, promoted, trimmed, next_due = tonumber(ARGV[1]), 0, 0, nil
local function trim(jobs, dead, ids)
  if #ids > 0 then
    redis.call('ZREM', dead, unpack(ids))
    redis.call('HDEL', jobs, unpack(ids))
    trimmed = trimmed + #ids
  end
end
for number = 1, #ARGV - 3 do
  local at = 2 + (number - 1) * 6
  local jobs, ready, scheduled, dead = KEYS[at], KEYS[at + 1], KEYS[at + 4], KEYS[at + 5]
  local count = 0
  if promoted < limit then
    count = promote(jobs, scheduled, ready, math.min(limit - promoted, 500))
    promoted = promoted + count
    signal(KEYS[at + 2], KEYS[at + 3], count)
  end
  local due = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')[2]
  if due and (not next_due or tonumber(due) < next_due) then
    next_due = tonumber(due)
  end
  if redis.call('EXISTS', dead) == 1 then
    local old = int(now - tonumber(ARGV[2]))
    trim(jobs, dead, redis.call('ZRANGEBYSCORE', dead, '-inf', old, 'LIMIT', 0, 100))
    local excess = math.min(redis.call('ZCARD', dead) - tonumber(ARGV[3]), 100)
    if excess > 0 then
      trim(jobs, dead, redis.call('ZRANGE', dead, 0, excess - 1))
    end
  end
  if redis.call('EXISTS', jobs) == 0 then
    redis.call('SREM', KEYS[1], ARGV[3 + number])
    redis.call('DEL', ready .. ':grouped')
  end
end
local wait = -1
if next_due then
  wait = math.max(0, next_due - now)
end
return { promoted, wait, trimmed }
