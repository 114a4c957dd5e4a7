-- look.sql: does the session live, is a job of these queues ready, and in how many
-- microseconds is the next job of any queue due? Writes nothing.
SELECT
    EXISTS (
        SELECT FROM {s}.sessions WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
    ),
    EXISTS (
        SELECT
        FROM unnest(%(queues)b::text[], %(floors)b::int8[]) AS q (name, floor)
        CROSS JOIN LATERAL (
            SELECT FROM {s}.jobs
            WHERE state = 1 AND queue = q.name AND rank >= q.floor
            ORDER BY rank
            LIMIT 1
        ) AS j
    ),
    (SELECT min(rank) FROM {s}.jobs WHERE state = 0) - {now}
