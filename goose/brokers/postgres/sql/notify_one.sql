-- notify_one.sql: tell idle workers of a queue, when the caller's transaction commits.
SELECT pg_notify('{channel}', CAST(%(queue)s AS text))
