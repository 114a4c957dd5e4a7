-- delete.lua: remove jobs that are in one state of one queue.
-- KEYS  1 jobs   2 the state's zset   3 first
-- ARGV  1... ids
-- Returns the numbers (from 0) of those that were removed. Atomic.

local removed = {}
for i = 1, #ARGV do
  if redis.call('ZREM', KEYS[2], ARGV[i]) == 1 then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
    leave(KEYS[2], { ARGV[i] })
    removed[#removed + 1] = i - 1
  end
end
return removed
