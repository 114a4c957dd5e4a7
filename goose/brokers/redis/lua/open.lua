-- open.lua: begin a session.
-- KEYS  1 sessions   2 lost (zset session -> declared dead)   3 gone (zset session -> when)
-- ARGV  1 session   2 microseconds to live   3 microseconds to remember those that are gone
-- Returns 1, or 0 if there is or was such a session. Atomic.

redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', int(now - tonumber(ARGV[3])))
for i = 1, 3 do
  if redis.call('ZSCORE', KEYS[i], ARGV[1]) then
    return 0
  end
end
redis.call('ZADD', KEYS[1], int(now + tonumber(ARGV[2])), ARGV[1])
return 1
