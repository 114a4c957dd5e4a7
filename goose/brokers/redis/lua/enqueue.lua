-- enqueue.lua: store jobs of one queue, ready now; ids that are stored already are left out.
-- KEYS  1 jobs (hash id -> job)   2 ready (zset id -> ready since)   3 sleepers   4 wake
--       5 queues (set of names)   6 stamp
-- ARGV  1 queue   2 '1' if a write must happen in any case, for WAIT   3... id, job, ...
-- Returns how many were new. Atomic; at most a few hundred jobs.

local at = back(KEYS[2])
local added, count = {}, 0
for i = 3, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    added[#added + 1] = int(at + count)
    added[#added + 1] = ARGV[i]
    count = count + 1
  end
end
if count > 0 then
  redis.call('ZADD', KEYS[2], unpack(added))
  signal(KEYS[3], KEYS[4], count)
end
redis.call('SADD', KEYS[5], ARGV[1])
if ARGV[2] == '1' then
  redis.call('SET', KEYS[6], int(now))
end
return count
