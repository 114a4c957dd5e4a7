-- audit.sql: transfer loans of sessions that are nowhere, or ended, to one that lives.
-- Returns as recover.sql.
WITH me AS MATERIALIZED (
    SELECT seq, {now} AS now
    FROM {s}.sessions
    WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
    FOR KEY SHARE
), strays AS MATERIALIZED (
    SELECT j.id, j.holder
    FROM me
    CROSS JOIN {s}.jobs AS j
    WHERE j.state = 2
        AND NOT EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state < 2)
    LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
), moved AS (
    UPDATE {s}.jobs AS j
    SET holder = me.seq, receipt = %(receipt)s, lent_at = me.now
    FROM strays, me
    WHERE j.id = strays.id AND j.state = 2 AND j.holder IS NOT DISTINCT FROM strays.holder
    RETURNING j.id, j.queue, j.grp, j.body, j.at, j.rank, strays.holder
)
SELECT moved.id, moved.queue, moved.grp, moved.body, moved.at, moved.rank, s.id, s.epoch
FROM me LEFT JOIN moved ON true LEFT JOIN {s}.sessions AS s ON s.seq = moved.holder
