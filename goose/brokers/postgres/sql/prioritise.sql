-- prioritise.sql: move ready jobs to the front of their queues, in this order.
UPDATE {s}.jobs AS j
SET rank = least(f.rank, 0) - cardinality(%(ids)b::text[]) + n.place - 1
FROM unnest(%(ids)b::text[]) WITH ORDINALITY AS n (id, place)
JOIN {s}.jobs AS k ON k.id = n.id AND k.state = 1
CROSS JOIN LATERAL (
    SELECT rank FROM {s}.jobs WHERE state = 1 AND queue = k.queue ORDER BY rank LIMIT 1
) AS f
WHERE j.id = n.id AND j.state = 1
RETURNING j.id, j.queue
