-- keep.lua: carry operations of a store out, all or none.
-- KEYS  1 kept (hash: key -> value)   2 until (zset: key -> instant)   3 names (zset, by name)
--       4... the set of each operation's key
-- ARGV  for each operation: verb, key, first, second, time to live in microseconds or ''
--       A value that may be absent is '-', or '+' and the value.
-- Returns 1 and the results; or 0, a key and why nothing was done. Atomic: what changes is
-- gathered in `items`, and written when every operation has been found possible.

local SWEEP, MOST, DIGITS = 20, 1e15, 16
local items, order = {}, {}

local function item(key, set)
  local found = items[key]
  if not found then
    local value = redis.call('HGET', KEYS[1], key)
    local expires = redis.call('ZSCORE', KEYS[2], key)
    if expires and tonumber(expires) <= now then
      value, expires = false, false
    end
    found = {key = key, set = set, value = value, expires = expires,
             size = redis.call('SCARD', set), members = {}}
    items[key] = found
    order[#order + 1] = found
  end
  return found
end

local function put(it, value, expires)
  it.value, it.expires, it.dirty = value, expires, true
end

local function remove(it)
  put(it, false, false)
  it.size, it.members, it.cleared = 0, {}, true
end

local function add(it, member, expires)
  local is_new = not it.members[member]
    and (it.cleared or redis.call('SISMEMBER', it.set, member) == 0)
  if is_new then
    it.members[member] = true
    it.size = it.size + 1
  end
  it.set_expires = expires or it.set_expires
  return it.size
end

local function optional(text)
  return string.sub(text, 1, 1) == '+' and string.sub(text, 2)
end

local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(now), 'LIMIT', 0, SWEEP)
local results = {1}
for n = 1, #ARGV / 5 do
  local verb, key, first, second, ttl = unpack(ARGV, 5 * n - 4, 5 * n)
  local it = item(key, KEYS[3 + n])
  local expires = ttl ~= '' and now + tonumber(ttl)
  local result
  if verb == 'delete' then
    result = (it.value or it.size > 0) and 1 or 0
    remove(it)
  elseif verb == 'add' then
    if it.value then
      return {0, key, 'a value'}
    end
    result = add(it, first, expires)
  elseif it.size > 0 then
    return {0, key, 'a set'}
  elseif verb == 'get' then
    result = it.value
  elseif verb == 'put' then
    result = 0
    if not (second == '1' and it.value) then
      put(it, first, expires)
      result = 1
    end
  elseif verb == 'swap' then
    result = 0
    if it.value == optional(first) then
      local new = optional(second)
      put(it, new, new and expires)
      result = 1
    end
  elseif verb == 'increment' then
    local text = it.value or '0'
    local digits = string.match(text, '^%-?(%d+)$')
    if not digits or #digits > DIGITS then
      return {0, key, 'a value that is no counter'}
    end
    local count = tonumber(text) + tonumber(first)
    if math.abs(count) > MOST then
      return {0, key, 'too much'}
    end
    put(it, int(count), expires or it.expires)
    result = int(count)
  end
  results[#results + 1] = result
end

for _, key in ipairs(due) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
end
for _, it in ipairs(order) do
  if it.cleared then
    redis.call('DEL', it.set)
  end
  if it.dirty and it.value then
    redis.call('HSET', KEYS[1], it.key, it.value)
    redis.call('ZADD', KEYS[3], 0, it.key)
    if it.expires then
      redis.call('ZADD', KEYS[2], int(tonumber(it.expires)), it.key)
    else
      redis.call('ZREM', KEYS[2], it.key)
    end
  elseif it.dirty then
    redis.call('HDEL', KEYS[1], it.key)
    redis.call('ZREM', KEYS[2], it.key)
    redis.call('ZREM', KEYS[3], it.key)
  end
  for member in pairs(it.members) do
    redis.call('SADD', it.set, member)
  end
  if it.set_expires then
    redis.call('PEXPIREAT', it.set, int(math.ceil(it.set_expires / 1000)))
  end
end
return results
