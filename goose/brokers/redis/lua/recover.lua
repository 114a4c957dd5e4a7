-- recover.lua: transfer loans of a dead session to a living one, with fresh receipts.
-- KEYS  1 sessions   2 lost   3 gone   4 holders   5 receipt   6 held by the dead session
--       7 held by the heir
-- ARGV  1 the heir   2 the dead session   3 jobs at most
-- Returns -1 if the heir does not live, else {queue/id, receipt, ...}. Atomic: each loan has one
-- holder at any moment. A dead session without loans is forgotten.

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return -1
end
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return {}
end
local limit = tonumber(ARGV[3])
local found, cursor = {}, '0'
repeat
  local part = redis.call('HSCAN', KEYS[6], cursor, 'COUNT', limit)
  cursor = part[1]
  for i = 1, #part[2], 2 do
    found[#found + 1] = { part[2][i], part[2][i + 1] }
  end
until #found > 0 or cursor == '0'
-- Receipts have the same number of digits, so this is the order they were lent in.
table.sort(found, function(a, b) return a[2] < b[2] end)

local instant = new_receipts(KEYS[5])
local answer, fields = {}, {}
for n = 1, math.min(limit, #found) do
  local field, loan = found[n][1], found[n][2]
  local fresh = instant .. '.' .. (FIRST + n) .. string.sub(loan, string.find(loan, ':', 1, true), -1)
  fields[n] = field
  answer[#answer + 1] = field
  answer[#answer + 1] = fresh
end
if #fields > 0 then
  redis.call('HSET', KEYS[7], unpack(answer))
  redis.call('SADD', KEYS[4], ARGV[1])
  redis.call('SET', KEYS[5], instant)
  redis.call('HDEL', KEYS[6], unpack(fields))
end
if redis.call('EXISTS', KEYS[6]) == 0 then
  redis.call('ZADD', KEYS[3], int(now), ARGV[2])
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('SREM', KEYS[4], ARGV[2])
end
return answer
