-- open.sql: begin a session, unless one of this name is known; forget those that ended long ago.
WITH old AS (
    DELETE FROM {s}.sessions WHERE state = 2 AND ended_at < {now} - %(remembered)s
)
INSERT INTO {s}.sessions (id, epoch, deadline)
VALUES (%(session)s, %(epoch)s, {now} + %(ttl)s)
ON CONFLICT DO NOTHING
