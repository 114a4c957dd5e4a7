-- promote.sql: make scheduled jobs ready now, at the back.
UPDATE {s}.jobs AS j
SET state = 1, at = n.now,
    rank = CASE WHEN j.grp IS NOT NULL OR EXISTS (
        SELECT FROM {s}.jobs AS o WHERE o.state = 1 AND o.queue = j.queue AND o.rank > {turns}
    ) THEN {turns} ELSE n.now + n.place END
FROM (
    SELECT i.id, i.place, t.now
    FROM (SELECT {now} AS now OFFSET 0) AS t
    CROSS JOIN unnest(%(ids)b::text[]) WITH ORDINALITY AS i (id, place)
) AS n
WHERE j.id = n.id AND j.state = 0
RETURNING j.id, j.queue
