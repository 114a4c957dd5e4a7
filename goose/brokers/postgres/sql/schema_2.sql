-- schema_2.sql: version 2 of the tables adds a store, for what is not a job.
--
-- A value is a row of store; a set is a row without a value, which knows its size, and a row of
-- store_members for each member. Instants are whole microseconds since the epoch, by the
-- server's clock; what has expired is there no more for anybody, and removed sometime later.

CREATE TABLE {s}.store (
    expires bigint,
    size integer NOT NULL DEFAULT 0,
    key text COLLATE "C" PRIMARY KEY,
    value bytea
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX store_expires ON {s}.store (expires) WHERE expires IS NOT NULL;

CREATE TABLE {s}.store_members (
    key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    PRIMARY KEY (key, member)
);

-- Carries out operations on keys of one group, in their order, all or none; one element of each
-- array is for one of them. Returns the answer of each: a value, '1' or '' for yes or no, or a
-- number. An error of SQLSTATE GO001 says in its message what there is instead, and in its
-- detail of which key.
--
-- Those of one group come one after the other, by a lock that is the first thing each takes;
-- so what is read here is the latest. What has expired is swept last, and only rows that nobody
-- holds: who sweeps never waits, so two that sweep each other's rows cannot wait for each other.
CREATE FUNCTION {s}.store_apply(
    key_group text, kinds text[], keys text[], olds bytea[], news bytea[], words text[], ttls bigint[]
) RETURNS bytea[] LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    answers bytea[] := '{}';
    answer bytea;
    held record;
    gone text;
    there boolean;
    is_set boolean;
    made_now bigint;
    until bigint;
    number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('{channel}:' || key_group, 0));
    made_now := {now};
    FOR n IN 1 .. cardinality(kinds) LOOP
        -- Held, so that it is not swept meanwhile.
        SELECT s.value, s.size, s.expires INTO held FROM {s}.store AS s WHERE s.key = keys[n] FOR UPDATE;
        there := FOUND AND (held.expires IS NULL OR held.expires > made_now);
        IF FOUND AND NOT there THEN
            DELETE FROM {s}.store_members AS m WHERE m.key = keys[n];
            DELETE FROM {s}.store AS s WHERE s.key = keys[n];
        END IF;
        is_set := there AND held.value IS NULL;
        IF kinds[n] <> 'delete' AND there AND is_set <> (kinds[n] = 'add') THEN
            RAISE EXCEPTION USING ERRCODE = 'GO001', DETAIL = keys[n],
                MESSAGE = CASE WHEN is_set THEN 'a set' ELSE 'a value' END;
        END IF;
        until := made_now + ttls[n];
        answer := '';
        CASE kinds[n]
        WHEN 'get' THEN
            answer := CASE WHEN there THEN held.value END;
        WHEN 'put', 'put_if_absent' THEN
            IF NOT (there AND kinds[n] = 'put_if_absent') THEN
                INSERT INTO {s}.store (key, value, expires) VALUES (keys[n], news[n], until)
                ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires;
                answer := '1';
            END IF;
        WHEN 'swap' THEN
            IF (CASE WHEN there THEN held.value END) IS NOT DISTINCT FROM olds[n] THEN
                IF news[n] IS NULL THEN
                    DELETE FROM {s}.store AS s WHERE s.key = keys[n];
                ELSE
                    INSERT INTO {s}.store (key, value, expires) VALUES (keys[n], news[n], until)
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires;
                END IF;
                answer := '1';
            END IF;
        WHEN 'delete' THEN
            IF there THEN
                DELETE FROM {s}.store_members AS m WHERE m.key = keys[n] AND is_set;
                DELETE FROM {s}.store AS s WHERE s.key = keys[n];
                answer := '1';
            END IF;
        WHEN 'add' THEN
            INSERT INTO {s}.store_members (key, member) VALUES (keys[n], words[n]) ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS number = ROW_COUNT;
            IF there THEN
                number := held.size + number;
                until := coalesce(until, held.expires);
            END IF;
            INSERT INTO {s}.store (key, size, expires) VALUES (keys[n], number, until)
            ON CONFLICT (key) DO UPDATE SET size = excluded.size, expires = excluded.expires;
            answer := number::text::bytea;
        WHEN 'increment' THEN
            number := words[n];
            IF there THEN
                IF encode(held.value, 'escape') !~ '^-?[0-9]{1,16}$' THEN
                    RAISE EXCEPTION USING ERRCODE = 'GO001', DETAIL = keys[n],
                        MESSAGE = 'a value that is no counter';
                END IF;
                number := number + encode(held.value, 'escape')::bigint;
                until := coalesce(until, held.expires);
            END IF;
            IF abs(number) > 1000000000000000 THEN
                RAISE EXCEPTION USING ERRCODE = 'GO001', DETAIL = keys[n], MESSAGE = 'too much';
            END IF;
            answer := number::text::bytea;
            INSERT INTO {s}.store (key, value, expires) VALUES (keys[n], answer, until)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires;
        END CASE;
        answers := array_append(answers, answer);
    END LOOP;

    FOR gone IN
        SELECT s.key FROM {s}.store AS s WHERE s.expires <= made_now ORDER BY s.expires LIMIT 20
        FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM {s}.store_members AS m WHERE m.ctid = ANY(ARRAY(
            SELECT o.ctid FROM {s}.store_members AS o WHERE o.key = gone LIMIT 1000
        ));
        GET DIAGNOSTICS number = ROW_COUNT;
        -- A large set goes by and by.
        CONTINUE WHEN number = 1000;
        DELETE FROM {s}.store AS s WHERE s.key = gone;
    END LOOP;
    RETURN answers;
END
$function$;

INSERT INTO {s}.meta (version, oldest) VALUES (2, 1);
