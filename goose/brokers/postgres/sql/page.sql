-- page.sql: the first jobs of each queue in a state, after a place, merged by their order.
WITH RECURSIVE q (name) AS (
    SELECT min(queue) FROM {s}.jobs WHERE state = {state}
    UNION ALL
    SELECT (SELECT min(queue) FROM {s}.jobs WHERE state = {state} AND queue > q.name)
    FROM q WHERE q.name IS NOT NULL
)
SELECT j.rank, j.id, j.queue, j.grp, j.body, {state}, j.at, j.rank, NULL, NULL
FROM q
CROSS JOIN LATERAL (
    SELECT * FROM {s}.jobs
    WHERE state = {state} AND queue = q.name AND (rank, id) > (%(rank)s, %(id)s)
    ORDER BY rank, id
    LIMIT %(limit)s
) AS j
WHERE %(queue)s::text IS NULL OR q.name = %(queue)s
ORDER BY j.rank, j.id
LIMIT %(limit)s
