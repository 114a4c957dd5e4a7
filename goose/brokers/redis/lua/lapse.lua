-- lapse.lua: declare silent sessions dead, and name the dead whose loans wait for an heir.
-- KEYS  1 sessions   2 lost   3 holders
-- ARGV  1 the caller's session   2 'silent', 'known' or 'audit', or 'word'
--       3 with 'word': the session that is dead   4 sessions at most
--       5 '1' if the caller has to live here
-- Returns -1 if the caller does not live, else their names. Atomic: from here on they take
-- nothing and their receipts are void. 'known' declares nobody. 'audit' declares dead who has
-- loans and does not exist.

if ARGV[5] == '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return -1
end
local limit = tonumber(ARGV[4])
local function declare(session)
  redis.call('ZADD', KEYS[2], int(now), session)
  redis.call('ZREM', KEYS[1], session)
end
if ARGV[2] == 'word' then
  if ARGV[3] ~= ARGV[1] and redis.call('ZSCORE', KEYS[1], ARGV[3]) then
    declare(ARGV[3])
  end
  if redis.call('ZSCORE', KEYS[2], ARGV[3]) then
    return { ARGV[3] }
  end
  return {}
end
-- Who is late itself has heard as little of the others as they of it, and judges nobody.
local own = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] == 'silent' and not (own and tonumber(own) <= now) then
  local silent = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, limit)
  for _, session in ipairs(silent) do
    if session ~= ARGV[1] then
      declare(session)
    end
  end
elseif ARGV[2] == 'audit' then
  local strays = {}
  for _, session in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local known = redis.call('ZSCORE', KEYS[1], session) or redis.call('ZSCORE', KEYS[2], session)
    if not known and #strays < limit then
      declare(session)
      strays[#strays + 1] = session
    end
  end
  return strays
end
return redis.call('ZRANGE', KEYS[2], 0, limit - 1)
