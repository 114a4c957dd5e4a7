-- notify.sql: tell idle workers of queues that have jobs; no part of what stored them.
SELECT pg_notify('{channel}', name) FROM unnest(%(queues)b::text[]) AS q (name)
