-- dequeue.sql: lend ready jobs of several queues, in their order, to a session that lives.
-- Each queue is read from a floor on: where a look may begin that need not see everything.
-- No row: the session does not live. One row of nulls: nothing is ready.
-- The lock on the session's row makes who declares it dead wait for this loan.
WITH me AS MATERIALIZED (
    SELECT seq, {now} AS now
    FROM {s}.sessions
    WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
    FOR KEY SHARE
), first AS MATERIALIZED (
    SELECT j.place
    FROM me
    CROSS JOIN unnest(%(queues)b::text[], %(floors)b::int8[]) AS q (name, floor)
    CROSS JOIN LATERAL (
        SELECT ctid AS place
        FROM {s}.jobs
        WHERE state = 1 AND queue = q.name AND rank >= q.floor
        ORDER BY rank
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS j
    LIMIT %(limit)s
), lent AS (
    UPDATE {s}.jobs AS j
    SET state = 2, holder = me.seq, receipt = %(receipt)s, lent_at = me.now
    FROM first, me
    WHERE j.ctid = first.place
    RETURNING j.id, j.queue, j.grp, j.body, j.at, j.rank
)
SELECT lent.* FROM me LEFT JOIN lent ON true
