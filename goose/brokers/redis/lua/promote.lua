-- promote.lua: make scheduled jobs of one queue ready now, at the back.
-- KEYS  1 scheduled   2 ready   3 sleepers   4 wake   5 jobs
-- ARGV  1... ids
-- Returns the numbers (from 0) of those that were scheduled. Atomic.

local moved = {}
for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[2], int(back(KEYS[2])), ARGV[i])
    stand(KEYS[2], ARGV[i], redis.call('HGET', KEYS[5], ARGV[i]) or '::')
    redis.call('ZREM', KEYS[1], ARGV[i])
    moved[#moved + 1] = i - 1
  end
end
signal(KEYS[3], KEYS[4], #moved)
return moved
