-- scan.sql: values whose keys begin with a prefix, after a key, in the order of their bytes.
SELECT key, value FROM {s}.store, (SELECT {now} AS now OFFSET 0) AS t
WHERE key >= %(prefix)s AND key < %(end)s AND key > %(after)s
    AND value IS NOT NULL AND (expires IS NULL OR expires > t.now)
ORDER BY key
LIMIT %(limit)s
