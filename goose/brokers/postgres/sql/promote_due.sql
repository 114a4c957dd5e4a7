-- promote_due.sql: make due jobs ready, each to the place of its instant; returns their queues.
WITH due AS MATERIALIZED (
    SELECT ctid AS place
    FROM {s}.jobs
    WHERE state = 0 AND rank <= {now}
    ORDER BY rank
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE {s}.jobs AS j SET state = 1, at = j.rank
FROM due WHERE j.ctid = due.place
RETURNING j.queue, set_config('synchronous_commit', 'off', true)
