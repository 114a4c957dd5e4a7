-- store_one.sql: keep one job that is ready, unless its id is stored already.
INSERT INTO {s}.jobs (id, queue, state, rank, at, grp, body)
SELECT %(id)s, %(queue)s, 1, t.now, t.now, %(group)s, %(body)b
FROM (SELECT {now} AS now OFFSET 0) AS t
ON CONFLICT DO NOTHING
