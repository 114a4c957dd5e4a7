-- bury.sql: move jobs to the dead ones of their queues, with these bodies. Returns as ack.sql.
WITH done AS (
    UPDATE {s}.jobs AS j
    SET state = 3, rank = n.now + n.place, at = n.now, queue = n.queue, grp = n.grp, body = n.body,
        holder = NULL, receipt = NULL, lent_at = NULL
    FROM (
        SELECT i.*, t.now
        FROM (SELECT {now} AS now OFFSET 0) AS t
        CROSS JOIN unnest(%(ids)b::text[], %(receipts)b::int8[], %(queues)b::text[],
                          %(groups)b::text[], %(bodies)b::bytea[])
            WITH ORDINALITY AS i (id, receipt, queue, grp, body, place)
        ORDER BY i.id
    ) AS n
    WHERE j.id = n.id AND j.receipt = n.receipt
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id, n.receipt
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(id) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(receipt) END
FROM done
