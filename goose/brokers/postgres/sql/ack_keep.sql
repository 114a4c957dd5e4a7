-- ack_keep.sql: as ack.sql; jobs that are done move to the finished ones. Returns as ack.sql.
WITH done AS (
    DELETE FROM {s}.jobs AS j
    USING unnest(%(ids)b::text[], %(receipts)b::int8[]) AS n (id, receipt)
    WHERE j.id = n.id AND j.receipt = n.receipt
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id, j.receipt, j.queue, j.grp, j.body
), kept AS (
    INSERT INTO {s}.done (at, id, queue, grp, body)
    SELECT t.now, d.id, d.queue, d.grp, d.body
    FROM (SELECT {now} AS now OFFSET 0) AS t CROSS JOIN done AS d
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(id) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(receipt) END
FROM done
