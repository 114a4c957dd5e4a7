-- finished.sql: jobs that are done, the last ones first, before a place.
SELECT at, id, queue, grp, body FROM {s}.done
WHERE (%(queue)s::text IS NULL OR queue = %(queue)s) AND (at, id) < (%(at)s, %(id)s)
ORDER BY at DESC, id DESC
LIMIT %(limit)s
