-- enqueue.lua: store jobs of one queue, ready now; ids that are stored already are left out.
-- KEYS  1 jobs (hash id -> job)   2 ready (zset id -> ready since)   3 sleepers   4 wake
--       5 queues (set of names)   6 stamp
-- ARGV  1 queue   2 '1' if a write must happen in any case, for WAIT   3... id, job, ...
-- Returns how many were new. Atomic; at most a few hundred jobs.

local at = back(KEYS[2])
local count = 0
if #ARGV == 4 then
  count = redis.call('HSETNX', KEYS[1], ARGV[3], ARGV[4])
  if count == 1 then
    redis.call('ZADD', KEYS[2], int(at), ARGV[3])
    stand(KEYS[2], ARGV[3], ARGV[4])
  end
else
  local ids = {}
  for i = 3, #ARGV, 2 do
    ids[(i - 1) / 2] = ARGV[i]
  end
  local stored = redis.call('HMGET', KEYS[1], unpack(ids))
  local seen, added, new = {}, {}, {}
  local shares = redis.call('EXISTS', KEYS[2] .. ':turns') == 1
  for n = 1, #ids do
    local id = ids[n]
    if not stored[n] and not seen[id] then
      seen[id] = true
      count = count + 1
      new[2 * count - 1] = id
      new[2 * count] = ARGV[2 * n + 2]
      added[2 * count - 1] = int(at + count)
      added[2 * count] = id
      shares = shares or group_of(ARGV[2 * n + 2]) ~= nil
    end
  end
  if count > 0 then
    redis.call('HSET', KEYS[1], unpack(new))
    redis.call('ZADD', KEYS[2], unpack(added))
    if shares then
      for n = 1, #new, 2 do
        stand(KEYS[2], new[n], new[n + 1])
      end
    end
  end
end
if count > 0 then
  signal(KEYS[3], KEYS[4], count)
end
redis.call('SADD', KEYS[5], ARGV[1])
-- Otherwise a WAIT after a repeated call, which writes nothing, would be about nothing.
if ARGV[2] == '1' then
  redis.call('SET', KEYS[6], int(now))
end
return count
