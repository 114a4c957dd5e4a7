-- schema_3.sql: version 3 of the tables adds done, for jobs that are kept after their end.
--
-- It is written to only by workers with the option keep_done. One partition holds what ended in
-- six hours, and is dropped as a whole, so that nothing is ever deleted row by row. Rows that
-- come while a partition is missing go to done_rest.

CREATE TABLE {s}.done (
    at bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    grp text,
    body bytea NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX done_id ON {s}.done (id);
CREATE INDEX done_at ON {s}.done (at, id);
CREATE TABLE {s}.done_rest PARTITION OF {s}.done DEFAULT;

-- Makes the partitions of the next day, and drops those that are over for keep microseconds.
-- Returns how many it dropped. As its owner, since workers may neither make nor drop tables; and
-- one at a time. A partition is made beside the table and then attached, which waits for nobody
-- who writes; dropping one waits for a second at most, and is left for the next time otherwise.
CREATE FUNCTION {s}.keep_done(keep bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $function$
DECLARE
    width CONSTANT bigint := 21600000000;
    now_us CONSTANT bigint := {now};
    dropped integer := 0;
    place text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('{channel}:done', 0)) THEN
        RETURN 0;
    END IF;
    FOR slot IN now_us / width .. now_us / width + 4 LOOP
        place := format('{s}.%I', 'done_' || slot);
        CONTINUE WHEN to_regclass(place) IS NOT NULL;
        EXECUTE format('CREATE TABLE %s (LIKE {s}.done INCLUDING ALL)', place);
        BEGIN
            EXECUTE format('ALTER TABLE {s}.done ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)',
                           place, slot * width, (slot + 1) * width);
        EXCEPTION WHEN check_violation THEN
            -- Its first rows are in done_rest already, so they all go there.
            EXECUTE format('DROP TABLE %s', place);
        END;
    END LOOP;
    FOR place IN
        SELECT format('{s}.%I', c.relname)
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = '{s}.done'::regclass AND c.relname ~ '^done_[0-9]+$'
            AND (substr(c.relname, 6)::bigint + 1) * width <= now_us - keep
    LOOP
        BEGIN
            EXECUTE 'DROP TABLE ' || place;
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            EXIT;
        END;
    END LOOP;
    DELETE FROM {s}.done_rest WHERE at <= now_us - keep;
    RETURN dropped;
END
$function$;
REVOKE ALL ON FUNCTION {s}.keep_done FROM PUBLIC;

INSERT INTO {s}.meta (version, oldest) VALUES (3, 1);
