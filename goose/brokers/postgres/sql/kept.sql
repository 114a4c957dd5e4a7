-- kept.sql: the values of some keys at one instant, null for a set; keys without any are left out.
SELECT key, value FROM {s}.store, (SELECT {now} AS now OFFSET 0) AS t
WHERE key = ANY(%(keys)b::text[]) AND (expires IS NULL OR expires > t.now)
