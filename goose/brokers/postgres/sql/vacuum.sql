-- vacuum.sql: clean the table up, unless somebody else is at it.
VACUUM (SKIP_LOCKED) {s}.jobs
