-- stats.lua: count the jobs of queues.
-- KEYS  for each queue: jobs, ready, scheduled, dead
-- ARGV  none
-- Returns {ready, scheduled, dead, running, microseconds the oldest has been ready or -1} for
-- each queue, flat. Atomic; changes nothing; O(1) for each queue.

local answer = {}
for at = 1, #KEYS, 4 do
  local ready = redis.call('ZCARD', KEYS[at + 1])
  local scheduled = redis.call('ZCARD', KEYS[at + 2])
  local dead = redis.call('ZCARD', KEYS[at + 3])
  local all = redis.call('HLEN', KEYS[at])
  local oldest = redis.call('ZRANGE', KEYS[at + 1], 0, 0, 'WITHSCORES')[2]
  answer[#answer + 1] = ready
  answer[#answer + 1] = scheduled
  answer[#answer + 1] = dead
  answer[#answer + 1] = math.max(0, all - ready - scheduled - dead)
  answer[#answer + 1] = oldest and math.max(0, now - tonumber(oldest)) or -1
end
return answer
