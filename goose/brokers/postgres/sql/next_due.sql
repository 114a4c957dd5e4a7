-- next_due.sql: in how many microseconds the next scheduled job is due, and the oldest dead job's age.
SELECT (SELECT min(rank) FROM {s}.jobs WHERE state = 0) - {now},
       EXISTS (SELECT FROM {s}.jobs WHERE state = 3)
