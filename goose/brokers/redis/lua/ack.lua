-- ack.lua: forget jobs that are done.
-- KEYS  1 sessions   2 held (of this session)   3 jobs
-- ARGV  1 session   2 queue   3... id, receipt, ...
-- Returns the numbers (from 0) of those that were no longer the caller's. Atomic.

local alive = redis.call('ZSCORE', KEYS[1], ARGV[1])
local fields, lost = {}, {}
for i = 3, #ARGV, 2 do
  fields[#fields + 1] = ARGV[2] .. '/' .. ARGV[i]
end
local loans = redis.call('HMGET', KEYS[2], unpack(fields))
local done, ids = {}, {}
for n = 1, #fields do
  if alive and loans[n] == ARGV[2 * n + 2] then
    done[#done + 1] = fields[n]
    ids[#ids + 1] = ARGV[2 * n + 1]
  else
    lost[#lost + 1] = n - 1
  end
end
if #done > 0 then
  redis.call('HDEL', KEYS[3], unpack(ids))
  redis.call('HDEL', KEYS[2], unpack(done))
end
return lost
