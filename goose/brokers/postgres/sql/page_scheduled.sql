-- page_scheduled.sql: as page.sql, of scheduled jobs, whose index is by time alone.
SELECT j.rank, j.id, j.queue, j.grp, j.body, 0, j.at, j.rank, NULL, NULL
FROM {s}.jobs AS j
WHERE j.state = 0 AND (j.rank, j.id) > (%(rank)s, %(id)s)
    AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
ORDER BY j.rank, j.id
LIMIT %(limit)s
