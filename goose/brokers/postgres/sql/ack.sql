-- ack.sql: forget jobs that are done, where the loan is still good and its session lives.
-- Returns how many, and unless that were all of them which.
WITH done AS (
    DELETE FROM {s}.jobs AS j
    USING unnest(%(ids)b::text[], %(receipts)b::int8[]) AS n (id, receipt)
    WHERE j.id = n.id AND j.receipt = n.receipt
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id, j.receipt
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(id) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(receipt) END
FROM done
