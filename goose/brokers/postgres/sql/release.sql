-- release.sql: give jobs back unstarted, each to the place it had, or before the first one in the turn
-- that goes now. Returns as ack.sql.
WITH done AS (
    UPDATE {s}.jobs AS j
    SET state = 1, holder = NULL, receipt = NULL, lent_at = NULL,
        rank = CASE WHEN j.rank <= {turns} THEN j.rank ELSE greatest(j.rank, (
            SELECT greatest((o.rank >> 20 << 20) + 1, o.rank - %(count)s + n.place - 1)
            FROM {s}.jobs AS o
            WHERE o.state = 1 AND o.queue = j.queue AND o.rank > {turns}
            ORDER BY o.rank LIMIT 1
        )) END
    FROM unnest(%(ids)b::text[], %(receipts)b::int8[]) WITH ORDINALITY AS n (id, receipt, place)
    WHERE j.id = n.id AND j.receipt = n.receipt
        AND EXISTS (SELECT FROM {s}.sessions AS s WHERE s.seq = j.holder AND s.state = 0)
    RETURNING j.id, n.receipt
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(id) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(receipt) END
FROM done
