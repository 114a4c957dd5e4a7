-- store.sql: keep jobs, each ready or scheduled; ids that are stored already are left out.
-- Where groups take turns, a ready job has one (see schema_4.sql).
-- In the order of ids, so that two callers with the same ids cannot wait for each other.
WITH lines AS MATERIALIZED (
    SELECT l.queue,
           CASE WHEN l.grp IS NOT NULL OR EXISTS (SELECT FROM {s}.turned AS t WHERE t.queue = l.queue)
                THEN {s}.in_order(l.queue, l.grp) END AS turn
    FROM (
        SELECT DISTINCT i.queue, i.grp
        FROM unnest(%(queues)b::text[], %(groups)b::text[]) AS i (queue, grp)
        ORDER BY i.queue, i.grp
    ) AS l
), shared AS MATERIALIZED (
    SELECT queue FROM lines GROUP BY queue HAVING count(turn) > 0
)
INSERT INTO {s}.jobs (id, queue, state, rank, at, grp, body)
SELECT n.id, n.queue, CASE WHEN n.due > t.now THEN 0 ELSE 1 END,
       CASE WHEN n.due > t.now THEN n.due
            WHEN n.queue IN (SELECT queue FROM shared) THEN {turns}
            ELSE t.now + n.place END,
       t.now, n.grp, n.body
FROM (SELECT {now} AS now) AS t
CROSS JOIN LATERAL (
    SELECT i.id, i.queue, i.grp, i.body, i.place, coalesce(t.now + i.delay, i.due_at, 0) AS due
    FROM unnest(%(ids)b::text[], %(queues)b::text[], %(groups)b::text[], %(bodies)b::bytea[],
                %(delays)b::int8[], %(dues)b::int8[])
        WITH ORDINALITY AS i (id, queue, grp, body, delay, due_at, place)
    ORDER BY i.id, i.place
) AS n
ON CONFLICT DO NOTHING
