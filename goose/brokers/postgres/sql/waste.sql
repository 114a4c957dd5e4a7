-- waste.sql: how many dead rows the table has, if this user may clean it up; else nothing.
SELECT pg_stat_get_dead_tuples(c.oid)
FROM pg_class AS c
WHERE c.oid = to_regclass('{s}.jobs') AND pg_has_role(c.relowner, 'USAGE')
