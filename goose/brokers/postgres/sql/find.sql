-- find.sql: the stored job of an id.
SELECT j.rank, j.id, j.queue, j.grp, j.body, j.state, coalesce(j.lent_at, j.at), j.rank, s.id, s.epoch
FROM {s}.jobs AS j
LEFT JOIN {s}.sessions AS s ON s.seq = j.holder
WHERE j.id = %(id)s
