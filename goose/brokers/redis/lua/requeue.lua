-- requeue.lua: replace each job by its next state, in the same queue or in another.
-- KEYS  1 sessions   2 held (of this session)   3 jobs it is in   4 jobs it goes to   5 ready
--       6 scheduled   7 sleepers   8 wake   9 queues
-- ARGV  1 session   2 queue it is in   3 queue it goes to   4... id, receipt, job, when, ...
-- Returns the numbers (from 0) of those that were no longer the caller's. Atomic; the next
-- state is written first. If the other queue has the id already, that job stays as it is.

local alive = redis.call('ZSCORE', KEYS[1], ARGV[1])
local lost, count = {}, 0
local moves = ARGV[2] ~= ARGV[3]
for i = 4, #ARGV, 4 do
  local id, receipt, value, when = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local field = ARGV[2] .. '/' .. id
  if alive and redis.call('HGET', KEYS[2], field) == receipt then
    if not moves or redis.call('HEXISTS', KEYS[4], id) == 0 then
      redis.call('HSET', KEYS[4], id, stamped(value, when))
      count = count + place(KEYS[5], KEYS[6], KEYS[7], KEYS[8], id, value, when)
    end
    redis.call('HDEL', KEYS[2], field)
    if moves then
      redis.call('HDEL', KEYS[3], id)
    end
  else
    lost[#lost + 1] = (i - 4) / 4
  end
end
signal(KEYS[7], KEYS[8], count)
redis.call('SADD', KEYS[9], ARGV[3])
return lost
