-- recover.sql: transfer loans of the dead, or of the one that is named, to a session that lives.
-- Returns as dequeue.sql.
WITH me AS MATERIALIZED (
    SELECT seq, {now} AS now
    FROM {s}.sessions
    WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
    FOR KEY SHARE
), orphans AS MATERIALIZED (
    SELECT j.id, s.seq AS held_by, s.id AS dead, s.epoch AS dead_epoch
    FROM me
    CROSS JOIN {s}.sessions AS s
    JOIN {s}.jobs AS j ON j.state = 2 AND j.holder = s.seq
    WHERE s.state = 1
        AND (%(dead)s::text IS NULL OR (s.id = %(dead)s AND s.epoch = %(dead_epoch)s))
    LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
), moved AS (
    UPDATE {s}.jobs AS j
    SET holder = me.seq, receipt = %(receipt)s, lent_at = me.now
    FROM orphans AS o, me
    WHERE j.id = o.id AND j.state = 2 AND j.holder = o.held_by
    RETURNING j.id, j.queue, j.grp, j.body, j.at, j.rank, o.dead, o.dead_epoch
)
SELECT moved.* FROM me LEFT JOIN moved ON true
