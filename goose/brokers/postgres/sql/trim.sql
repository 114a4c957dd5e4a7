-- trim.sql: drop dead jobs that are too old, or too many in their queue.
DELETE FROM {s}.jobs
WHERE state = 3 AND id IN (
    SELECT id
    FROM (
        SELECT id, rank, row_number() OVER (PARTITION BY queue ORDER BY rank DESC) AS number
        FROM {s}.jobs
        WHERE state = 3
    ) AS dead
    WHERE number > %(keep)s OR rank < {now} - %(age)s
    ORDER BY rank
    LIMIT %(limit)s
)
