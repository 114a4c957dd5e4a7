-- requeue.sql: replace jobs by their next states, ready at the back or scheduled. Returns as ack.sql.
WITH done AS (
    UPDATE {s}.jobs AS j
    SET state = CASE WHEN n.due > n.now THEN 0 ELSE 1 END,
        rank = CASE WHEN n.due > n.now THEN n.due
                    WHEN n.grp IS NOT NULL OR EXISTS (
                        SELECT FROM {s}.jobs AS o
                        WHERE o.state = 1 AND o.queue = n.queue AND o.rank > {turns}
                    ) THEN {turns}
                    ELSE n.now + n.place END,
        at = n.now, queue = n.queue, grp = n.grp, body = n.body,
        holder = NULL, receipt = NULL, lent_at = NULL
    FROM (
        SELECT i.*, t.now, coalesce(t.now + i.delay, i.due_at, 0) AS due
        FROM (SELECT {now} AS now OFFSET 0) AS t
        CROSS JOIN unnest(%(ids)b::text[], %(receipts)b::int8[], %(queues)b::text[],
                          %(groups)b::text[], %(bodies)b::bytea[], %(delays)b::int8[],
                          %(dues)b::int8[])
            WITH ORDINALITY AS i (id, receipt, queue, grp, body, delay, due_at, place)
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
