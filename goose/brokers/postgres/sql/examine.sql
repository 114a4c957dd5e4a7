-- examine.sql: what `goose doctor` is told of the server; what this user may not see is empty.
SELECT
    extract(epoch FROM clock_timestamp())::float8,
    current_setting('server_version'),
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
    (SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8
     FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()),
    (SELECT age(datfrozenxid)::bigint FROM pg_database WHERE datname = current_database())
