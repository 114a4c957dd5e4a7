-- store_one.sql: keep one job that is ready, unless its id is stored already.
INSERT INTO {s}.jobs (id, queue, state, rank, at, grp, body)
SELECT %(id)s::text, %(queue)s::text, 1,
       CASE WHEN {s}.turns_in_order(%(queue)s::text, %(group)s::text) THEN {turns} ELSE t.now END,
       t.now, %(group)s::text, %(body)b::bytea
FROM (SELECT {now} AS now OFFSET 0) AS t
ON CONFLICT DO NOTHING
