-- heartbeat.lua: prove that a session lives.
-- KEYS  1 sessions
-- ARGV  1 session   2 microseconds to live
-- Returns 1, or 0 if it does not live. Atomic: whoever was declared dead stays so.

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
redis.call('ZADD', KEYS[1], int(now + tonumber(ARGV[2])), ARGV[1])
return 1
