-- bury.lua: move jobs to the dead ones of a queue, and drop the oldest of these if too many.
-- KEYS  1 sessions   2 held (of this session)   3 jobs it is in   4 jobs it goes to
--       5 dead (zset id -> since)   6 queues
-- ARGV  1 session   2 queue it is in   3 queue it goes to   4 dead jobs to keep
--       5... id, receipt, job, ...
-- Returns the numbers (from 0) of those that were no longer the caller's. Atomic; the dead
-- job is written first. If the other queue has the id already, that job stays as it is.

local alive = redis.call('ZSCORE', KEYS[1], ARGV[1])
local lost = {}
local at = back(KEYS[5])
local moves = ARGV[2] ~= ARGV[3]
for i = 5, #ARGV, 3 do
  local id, receipt, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local field = ARGV[2] .. '/' .. id
  if alive and redis.call('HGET', KEYS[2], field) == receipt then
    if not moves or redis.call('HEXISTS', KEYS[4], id) == 0 then
      redis.call('HSET', KEYS[4], id, value)
      redis.call('ZADD', KEYS[5], int(at + i), id)
    end
    redis.call('HDEL', KEYS[2], field)
    if moves then
      redis.call('HDEL', KEYS[3], id)
    end
  else
    lost[#lost + 1] = (i - 5) / 3
  end
end
redis.call('SADD', KEYS[6], ARGV[3])
local excess = math.min(redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[4]), 100)
if excess > 0 then
  local old = redis.call('ZRANGE', KEYS[5], 0, excess - 1)
  redis.call('ZREM', KEYS[5], unpack(old))
  redis.call('HDEL', KEYS[4], unpack(old))
end
return lost
