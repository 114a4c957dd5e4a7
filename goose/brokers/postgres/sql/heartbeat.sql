-- heartbeat.sql: a session lives for so long from now, if it is not held for dead.
UPDATE {s}.sessions SET deadline = {now} + %(ttl)s
WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
RETURNING set_config('synchronous_commit', 'off', true)
