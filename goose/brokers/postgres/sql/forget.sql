-- forget.sql: keep only the names of dead sessions that nothing is left of.
-- A step of its own after they were declared dead, so that it sees all that was lent to them.
UPDATE {s}.sessions AS s SET state = 2, ended_at = {now}
WHERE s.state = 1 AND NOT EXISTS (SELECT FROM {s}.jobs AS j WHERE j.state = 2 AND j.holder = s.seq)
