-- home.sql: which tables these are, among all of that name.
SELECT CAST(home AS text) FROM {s}.meta WHERE version = 1
