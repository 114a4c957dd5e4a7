-- present.sql: are the tables in this database?
-- Reads the catalog, as a name that was missing when this backend last looked it up may be
-- remembered as missing, also after a wait for whoever makes it.
SELECT CASE WHEN EXISTS (
    SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = '{channel}' AND c.relname = 'meta'
) THEN 1 ELSE 0 END
