-- release.sql: give jobs back unstarted, each to the place it had. Returns as ack.sql.
WITH done AS (
    UPDATE {s}.jobs AS j
    SET state = 1, holder = NULL, receipt = NULL, lent_at = NULL
    FROM unnest(%(ids)b::text[], %(receipts)b::int8[]) AS n (id, receipt)
    WHERE j.id = n.id AND j.receipt = n.receipt
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id, n.receipt
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(id) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(receipt) END
FROM done
