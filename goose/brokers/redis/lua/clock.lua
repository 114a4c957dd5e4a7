-- clock.lua: tell the time, in microseconds.
-- KEYS  1 any, to say of which server

return int(now)
