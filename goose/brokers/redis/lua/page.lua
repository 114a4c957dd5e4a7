-- page.lua: list the jobs in one state of one queue, by their instants.
-- KEYS  1 jobs   2 the state's zset
-- ARGV  1 jobs at most   2 score and 3 id to begin after, or '' and ''
-- Returns {id, score, job, ...}. Atomic; changes nothing.

-- Whether text `a` comes before `b` byte by byte, as in a zset, whatever the locale is.
local function is_before(a, b)
  for i = 1, math.min(#a, #b) do
    local one, other = string.byte(a, i), string.byte(b, i)
    if one ~= other then
      return one < other
    end
  end
  return #a < #b
end

local limit, score, after = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local start = 0
if score ~= '' then
  local rank = redis.call('ZRANK', KEYS[2], after)
  if rank and tonumber(redis.call('ZSCORE', KEYS[2], after)) == tonumber(score) then
    start = rank + 1
  else
    -- It has left. Of those with the same instant, which come by their ids, skip what is before it.
    start = redis.call('ZCOUNT', KEYS[2], '-inf', '(' .. score)
    local last = redis.call('ZCOUNT', KEYS[2], '-inf', score)
    while start < last do
      local middle = math.floor((start + last) / 2)
      local id = redis.call('ZRANGE', KEYS[2], middle, middle)[1]
      if id == after or is_before(id, after) then
        start = middle + 1
      else
        last = middle
      end
    end
  end
end
local found = redis.call('ZRANGE', KEYS[2], start, start + limit - 1, 'WITHSCORES')
local answer = {}
for i = 1, #found, 2 do
  local value = redis.call('HGET', KEYS[1], found[i])
  if value then
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = found[i + 1]
    answer[#answer + 1] = value
  end
end
return answer
