-- lost.sql: does the session live, are some known for dead, and is another one silent?
SELECT
    EXISTS (
        SELECT FROM {s}.sessions WHERE id = %(session)s AND epoch = %(epoch)s AND state = 0
    ),
    EXISTS (SELECT FROM {s}.sessions WHERE state = 1),
    EXISTS (SELECT FROM {s}.sessions WHERE state = 0 AND deadline <= {now})
