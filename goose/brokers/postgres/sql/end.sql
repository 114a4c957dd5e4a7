-- end.sql: end a session that holds nothing; its row is held already (close_in.sql).
UPDATE {s}.sessions AS s SET state = 2, ended_at = {now}
WHERE s.id = %(session)s AND s.epoch = %(epoch)s AND s.state < 2
    AND NOT EXISTS (SELECT FROM {s}.jobs AS j WHERE j.state = 2 AND j.holder = s.seq)
RETURNING s.seq
