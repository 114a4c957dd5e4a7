-- inter.lua: store jobs of one queue as dead, as the first half of a move between slots.
-- KEYS  1 jobs   2 dead   3 queues
-- ARGV  1 queue   2... id, job, ...
-- Returns how many were new. Atomic; ids that are stored already are left out.

local at, count = back(KEYS[2]), 0
for i = 2, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', KEYS[2], int(at + i), ARGV[i])
    count = count + 1
  end
end
redis.call('SADD', KEYS[3], ARGV[1])
return count
