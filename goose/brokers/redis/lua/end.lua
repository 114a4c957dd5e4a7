-- end.lua: end a session that holds nothing.
-- KEYS  1 sessions   2 lost   3 gone   4 holders   5 held (of this session)
-- ARGV  1 session
-- Returns 1 if it is gone, 0 if it holds loans. Atomic: it takes none in between.

if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  if redis.call('EXISTS', KEYS[5]) == 1 then
    return 0
  end
  redis.call('ZADD', KEYS[3], int(now), ARGV[1])
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('SREM', KEYS[4], ARGV[1])
end
return 1
