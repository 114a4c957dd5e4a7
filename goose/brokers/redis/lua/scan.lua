-- scan.lua: look at some of a store's values, in the order of their names.
-- KEYS  1 kept   2 until   3 names
-- ARGV  1 first name, as ZRANGEBYLEX takes it   2 last name, likewise   3 how many
-- Returns the last name looked at, or '' at the end; then key, value, ... of those not over.

local keys = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
local found = {#keys < tonumber(ARGV[3]) and '' or keys[#keys]}
for _, key in ipairs(keys) do
  local expires = redis.call('ZSCORE', KEYS[2], key)
  if not expires or tonumber(expires) > now then
    found[#found + 1] = key
    found[#found + 1] = redis.call('HGET', KEYS[1], key)
  end
end
return found
