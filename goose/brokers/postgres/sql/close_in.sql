-- close_in.sql: hold a session's row, so that no loan to it is under way; the first half of its end.
SELECT state FROM {s}.sessions WHERE id = %(session)s AND epoch = %(epoch)s FOR UPDATE
