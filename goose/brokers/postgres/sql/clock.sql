-- clock.sql: this instant, in microseconds.
SELECT {now}
