-- replay.lua: make dead jobs ready, with new bodies, in the same queue or in another.
-- KEYS  1 dead   2 jobs it is in   3 jobs it goes to   4 ready   5 sleepers   6 wake   7 queues
-- ARGV  1 queue it goes to   2... id, job, ...
-- Returns the numbers (from 0) of those that were dead. Atomic; the ready job is written first.

local moved = {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local taken = KEYS[2] ~= KEYS[3] and redis.call('HEXISTS', KEYS[3], id) == 1
  if not taken and redis.call('ZSCORE', KEYS[1], id) then
    redis.call('HSET', KEYS[3], id, ARGV[i + 1])
    redis.call('ZADD', KEYS[4], int(back(KEYS[4])), id)
    stand(KEYS[4], id, ARGV[i + 1])
    redis.call('ZREM', KEYS[1], id)
    if KEYS[2] ~= KEYS[3] then
      redis.call('HDEL', KEYS[2], id)
    end
    moved[#moved + 1] = (i - 2) / 2
  end
end
redis.call('SADD', KEYS[7], ARGV[1])
signal(KEYS[5], KEYS[6], #moved)
return moved
