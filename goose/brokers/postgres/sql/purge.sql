-- purge.sql: remove some jobs that are in a state for long enough.
DELETE FROM {s}.jobs
WHERE state = {state} AND id IN (
    SELECT id
    FROM {s}.jobs
    WHERE state = {state} AND (%(queue)s::text IS NULL OR queue = %(queue)s)
        AND at <= {now} - %(age)s
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
