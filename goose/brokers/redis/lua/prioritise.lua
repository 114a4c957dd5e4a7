-- prioritise.lua: let ready jobs of one queue go before its line, in the order given.
-- KEYS  1 ready   2 first
-- ARGV  1... ids
-- Returns the numbers (from 0) of those that were ready. Atomic.

local head = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local turn = tonumber(head[2] or 0) - #ARGV - 1
local moved = {}
for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[2], int(turn + i), ARGV[i])
    moved[#moved + 1] = i - 1
  end
end
return moved
