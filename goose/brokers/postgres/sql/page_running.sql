-- page_running.sql: as page.sql, of running jobs, in the order they were lent, with who holds them.
SELECT j.lent_at, j.id, j.queue, j.grp, j.body, 2, j.lent_at, j.rank, s.id, s.epoch
FROM {s}.jobs AS j
LEFT JOIN {s}.sessions AS s ON s.seq = j.holder
WHERE j.state = 2 AND (j.lent_at, j.id) > (%(rank)s, %(id)s)
    AND (%(queue)s::text IS NULL OR j.queue = %(queue)s)
ORDER BY j.lent_at, j.id
LIMIT %(limit)s
