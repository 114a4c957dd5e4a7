-- present.sql: are the tables in this database?
SELECT CASE WHEN to_regclass('{s}.meta') IS NULL THEN 0 ELSE 1 END
