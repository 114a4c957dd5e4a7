-- keep_done.sql: make room for finished jobs, and drop those that were kept for long enough.
SELECT {s}.keep_done(%(keep)s)
