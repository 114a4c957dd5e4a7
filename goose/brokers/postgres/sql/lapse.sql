-- lapse.sql: declare dead who is silent, or the one that is named; not the caller.
-- Waits for loans that are just being made to them, and is then a step before all others.
WITH silent AS MATERIALIZED (
    SELECT s.seq
    FROM {s}.sessions AS s
    WHERE s.state = 0
        AND CASE WHEN %(dead)s::text IS NULL THEN s.deadline <= {now}
            ELSE s.id = %(dead)s AND s.epoch = %(dead_epoch)s END
        AND (s.id, s.epoch) <> (%(session)s, %(epoch)s)
        AND EXISTS (
            SELECT FROM {s}.sessions
            WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
                -- Who is late itself has heard as little of the others as they of it.
                AND (%(dead)s::text IS NOT NULL OR deadline > {now})
        )
    ORDER BY s.seq
    LIMIT 100
    FOR UPDATE OF s
)
UPDATE {s}.sessions AS s SET state = 1 FROM silent WHERE s.seq = silent.seq
