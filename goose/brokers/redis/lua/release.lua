-- release.lua: give back jobs that were not started; each takes the place it had.
-- KEYS  1 sessions   2 held (of this session)   3 ready   4 first   5 sleepers   6 wake
-- ARGV  1 session   2 queue   3... id, receipt, ..., in the order they were lent
-- Returns the numbers (from 0) of those that were no longer the caller's. Atomic.

local alive = redis.call('ZSCORE', KEYS[1], ARGV[1])
local head = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
local turn = (tonumber(head[2] or 0)) - #ARGV
local turns = KEYS[3] .. ':turns'
-- Before the head, but in its turn, so that whoever comes next begins no earlier.
local head_place = tonumber(redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')[2] or 0)
local first_place = math.max((head_turn(turns) - 1) * TURN + 1, head_place - #ARGV)
local lost, count = {}, 0
for i = 3, #ARGV, 2 do
  local id, receipt = ARGV[i], ARGV[i + 1]
  local field = ARGV[2] .. '/' .. id
  if alive and redis.call('HGET', KEYS[2], field) == receipt then
    redis.call('ZADD', KEYS[3], string.match(receipt, ':(%d+)'), id)
    if string.sub(receipt, -1) == '!' then
      redis.call('ZADD', KEYS[4], int(turn + i), id)
    elseif string.sub(receipt, -1) == '~' then
      redis.call('ZADD', turns, int(math.min(head_place, first_place + i)), id)
    end
    redis.call('HDEL', KEYS[2], field)
    count = count + 1
  else
    lost[#lost + 1] = (i - 3) / 2
  end
end
signal(KEYS[5], KEYS[6], count)
return lost
