-- replay.sql: make dead jobs ready, at the back, with these bodies and queues.
UPDATE {s}.jobs AS j
SET state = 1, at = n.now,
    rank = CASE WHEN n.grp IS NOT NULL OR EXISTS (
        SELECT FROM {s}.jobs AS o WHERE o.state = 1 AND o.queue = n.queue AND o.rank > {turns}
    ) THEN {turns} ELSE n.now + n.place END,
    queue = n.queue, grp = n.grp, body = n.body
FROM (
    SELECT i.*, t.now
    FROM (SELECT {now} AS now OFFSET 0) AS t
    CROSS JOIN unnest(%(ids)b::text[], %(queues)b::text[], %(groups)b::text[], %(bodies)b::bytea[])
        WITH ORDINALITY AS i (id, queue, grp, body, place)
) AS n
WHERE j.id = n.id AND j.state = 3
RETURNING j.id, j.queue
