-- held.sql: what a session holds, with its receipts. Returns as dequeue.sql.
SELECT j.id, j.queue, j.grp, j.body, j.at, j.rank, j.receipt
FROM {s}.sessions AS s
LEFT JOIN {s}.jobs AS j ON j.state = 2 AND j.holder = s.seq
WHERE s.id = %(session)s AND s.epoch = %(epoch)s AND s.state = 0
