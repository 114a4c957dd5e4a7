-- purge.lua: remove jobs in one state of one queue that are in it for some time.
-- KEYS  1 jobs   2 the state's zset   3 first
-- ARGV  1 microseconds   2 jobs at most   3 '1' if the instants are those when jobs are due
--       4 rank to begin at
-- Returns {removed, looked at}. Atomic. Since when a scheduled job waits stands before it.

local limit = tonumber(ARGV[2])
local until_ = now - tonumber(ARGV[1])
local ids
local looked
if ARGV[3] == '1' then
  local start = tonumber(ARGV[4])
  local found = redis.call('ZRANGE', KEYS[2], start, start + limit - 1)
  ids, looked = {}, #found
  for _, id in ipairs(found) do
    local since = string.match(redis.call('HGET', KEYS[1], id) or '', '^%d+')
    if tonumber(since or 0) <= until_ then
      ids[#ids + 1] = id
    end
  end
else
  ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(until_), 'LIMIT', 0, limit)
  looked = #ids
end
if #ids > 0 then
  redis.call('ZREM', KEYS[2], unpack(ids))
  redis.call('HDEL', KEYS[1], unpack(ids))
  redis.call('ZREM', KEYS[3], unpack(ids))
  leave(KEYS[2], ids)
end
return { #ids, looked }
