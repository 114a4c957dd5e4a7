-- promote.sql: make scheduled jobs ready now, at the back.
UPDATE {s}.jobs AS j SET state = 1, rank = n.now + n.place, at = n.now
FROM (
    SELECT i.id, i.place, t.now
    FROM (SELECT {now} AS now OFFSET 0) AS t
    CROSS JOIN unnest(%(ids)b::text[]) WITH ORDINALITY AS i (id, place)
) AS n
WHERE j.id = n.id AND j.state = 0
RETURNING j.id, j.queue
