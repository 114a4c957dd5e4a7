-- promote_due.sql: make due jobs ready, each to the place of its instant, or to its turn; returns their queues.
WITH due AS MATERIALIZED (
    SELECT ctid AS place
    FROM {s}.jobs
    WHERE state = 0 AND rank <= {now}
    ORDER BY rank
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE {s}.jobs AS j
SET state = 1, at = j.rank,
    rank = CASE WHEN j.grp IS NOT NULL OR EXISTS (
        SELECT FROM {s}.jobs AS o WHERE o.state = 1 AND o.queue = j.queue AND o.rank > {turns}
    ) THEN {turns} ELSE j.rank END
FROM due WHERE j.ctid = due.place
RETURNING j.queue, set_config('synchronous_commit', 'off', true)
