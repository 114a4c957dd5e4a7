-- schedule.lua: store jobs of one queue, each due as it says; stored ids are left out.
-- KEYS  1 jobs   2 ready   3 sleepers   4 wake   5 queues   6 stamp
--       7 scheduled (zset id -> due)
-- ARGV  1 queue   2 '1' if a write must happen in any case   3... id, job, when, ...
-- Returns how many were new. Atomic; at most a few hundred jobs.

local count, due = 0, 0
for i = 3, #ARGV, 3 do
  local id, value, when = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HSETNX', KEYS[1], id, stamped(value, when)) == 1 then
    count = count + 1
    due = due + place(KEYS[2], KEYS[7], KEYS[3], KEYS[4], id, value, when)
  end
end
signal(KEYS[3], KEYS[4], due)
redis.call('SADD', KEYS[5], ARGV[1])
if ARGV[2] == '1' then
  redis.call('SET', KEYS[6], int(now))
end
return count
