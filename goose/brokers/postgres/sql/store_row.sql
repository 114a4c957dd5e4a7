-- store_row.sql: as store.sql, of one job, by plain values, which every driver and library passes on.
INSERT INTO {s}.jobs (id, queue, state, rank, at, grp, body)
SELECT n.id, n.queue, CASE WHEN n.due > n.now THEN 0 ELSE 1 END,
       CASE WHEN n.due > n.now THEN n.due
            WHEN n.grp IS NOT NULL OR EXISTS (SELECT FROM {s}.turned AS t WHERE t.queue = n.queue)
            THEN {turns}
            ELSE n.now END,
       n.now, n.grp, n.body
FROM (
    SELECT CAST(%(id)s AS text) AS id, CAST(%(queue)s AS text) AS queue,
           CAST(%(group)s AS text) AS grp, CAST(%(body)s AS bytea) AS body, t.now,
           coalesce(t.now + CAST(%(delay)s AS bigint), CAST(%(due_at)s AS bigint), 0) AS due
    FROM (SELECT {now} AS now OFFSET 0) AS t
) AS n
ON CONFLICT DO NOTHING
