-- find.lua: find a job by its id.
-- KEYS  for each queue: jobs, ready, scheduled, dead
-- ARGV  1 id
-- Returns {} or {number of the queue, state, score, job}; of a running job the score is ''.
-- Atomic; changes nothing.

for at = 1, #KEYS, 4 do
  local value = redis.call('HGET', KEYS[at], ARGV[1])
  if value then
    local number = (at + 3) / 4
    for n, state in ipairs({ 'ready', 'scheduled', 'dead' }) do
      local score = redis.call('ZSCORE', KEYS[at + n], ARGV[1])
      if score then
        return { number, state, score, value }
      end
    end
    return { number, 'running', '', value }
  end
end
return {}
