-- store_one.sql: keep one job that is ready, unless its id is stored already.
INSERT INTO {s}.jobs (id, queue, state, rank, at, grp, body)
SELECT %(id)s::text, %(queue)s::text, 1,
       CASE WHEN %(group)s::text IS NOT NULL
                OR EXISTS (SELECT FROM {s}.turned WHERE queue = %(queue)s::text)
            THEN {s}.in_order(%(queue)s::text, %(group)s::text)
            ELSE t.now END,
       t.now, %(group)s::text, %(body)b::bytea
FROM (SELECT {now} AS now OFFSET 0) AS t
ON CONFLICT DO NOTHING
