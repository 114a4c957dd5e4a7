-- schema_4.sql: version 4 of the tables lets groups take turns (ADR 23).
--
-- While a job with a group is ready in a queue, what gets ready there has a place in a turn for a rank,
-- which is above {turns}, and so behind all instants. A turn has 2^20 places, of which the later half is
-- given out; a job that is given back stands before the first, in the same turn. A statement that makes
-- a job ready where groups take turns writes {turns} itself, which is no place, and the trigger puts its
-- place there.

CREATE INDEX jobs_turns ON {s}.jobs (queue, coalesce(grp, ''), rank) WHERE state = 1 AND rank > {turns};

-- The queues in which groups take turns, a row for each job. A view, so that who may add a job need not be
-- able to read others'.
CREATE VIEW {s}.turned AS SELECT queue FROM {s}.jobs WHERE state = 1 AND rank > {turns};

-- Waits for all others that add to that group there: else as many as add at the same time would share a
-- turn. For transactions that end with the statement. Returns what stands for a turn.
CREATE FUNCTION {s}.in_order(name text, job_group text) RETURNS bigint LANGUAGE sql VOLATILE AS $function$
    SELECT {turns} FROM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(
        pg_catalog.concat('{channel}:', name, ':', job_group), 1
    ))
$function$;

-- The turn after that of the last ready job of its group, and none before that of the first job there
-- is; in it, the last place. As the owner of the tables, who may read them.
CREATE FUNCTION {s}.take_turn() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    first_rank bigint := (
        SELECT rank FROM {s}.jobs WHERE state = 1 AND rank > {turns} AND queue = NEW.queue
        ORDER BY rank LIMIT 1
    );
    last_rank bigint := (
        SELECT rank FROM {s}.jobs
        WHERE state = 1 AND rank > {turns} AND queue = NEW.queue
            AND coalesce(grp, '') = coalesce(NEW.grp, '')
        ORDER BY rank DESC LIMIT 1
    );
    turn bigint := greatest(
        0, (first_rank - {turns}) >> 20, ((last_rank - {turns}) >> 20) + 1
    );
    begins bigint := {turns} + (turn << 20);
BEGIN
    NEW.rank := least(begins + (1 << 20) - 1, greatest(begins + (1 << 19), (
        SELECT rank + 1 FROM {s}.jobs
        WHERE state = 1 AND rank > {turns} AND rank < begins + (1 << 20) AND queue = NEW.queue
        ORDER BY rank DESC LIMIT 1
    )));
    RETURN NEW;
END
$function$;
REVOKE ALL ON FUNCTION {s}.take_turn FROM PUBLIC;
CREATE TRIGGER take_turn BEFORE INSERT OR UPDATE OF rank ON {s}.jobs
    FOR EACH ROW WHEN (NEW.rank = {turns}) EXECUTE FUNCTION {s}.take_turn();

-- For programs in any language: store a call inside the caller's transaction and wake a worker
-- when that commits. Returns the job's id.
CREATE OR REPLACE FUNCTION {s}.enqueue(
    fn text,
    args jsonb DEFAULT '[]',
    kwargs jsonb DEFAULT '{}',
    queue text DEFAULT 'default',
    delay interval DEFAULT NULL,
    due_at timestamptz DEFAULT NULL,
    retry jsonb DEFAULT NULL,
    timeout double precision DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    made_at double precision := extract(epoch FROM clock_timestamp());
    now_us bigint := floor(made_at * 1000000);
    due_us bigint := coalesce(
        now_us + (extract(epoch FROM enqueue.delay) * 1000000)::bigint,
        (extract(epoch FROM enqueue.due_at) * 1000000)::bigint,
        0
    );
    hex text := lpad(to_hex(now_us / 1000), 12, '0') || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14);
    made_id text := (hex::uuid)::text;
BEGIN
    IF enqueue.fn IS NULL OR position(':' IN enqueue.fn) = 0 THEN
        RAISE EXCEPTION 'fn is %, not module:name', quote_nullable(enqueue.fn) USING ERRCODE = '22023';
    END IF;
    IF enqueue.queue IS NULL OR enqueue.queue !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}$' THEN
        RAISE EXCEPTION '% cannot name a queue', quote_nullable(enqueue.queue) USING ERRCODE = '22023';
    END IF;
    IF jsonb_typeof(enqueue.args) IS DISTINCT FROM 'array'
       OR jsonb_typeof(enqueue.kwargs) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'args must be a JSON array and kwargs a JSON object' USING ERRCODE = '22023';
    END IF;
    INSERT INTO {s}.jobs (id, queue, state, rank, at, body)
    VALUES (
        made_id,
        enqueue.queue,
        CASE WHEN due_us > now_us THEN 0 ELSE 1 END,
        CASE WHEN due_us <= now_us AND EXISTS (
            SELECT FROM {s}.turned AS t WHERE t.queue = enqueue.queue
        ) THEN {turns}
             ELSE greatest(due_us, now_us) END,
        now_us,
        convert_to((jsonb_strip_nulls(jsonb_build_object(
            'v', 1, 'id', made_id, 'fn', enqueue.fn, 'queue', enqueue.queue, 'enqueued_at', made_at,
            'retry', enqueue.retry, 'timeout', enqueue.timeout
        -- Outside of what is stripped: a null among the arguments is an argument.
        )) || jsonb_build_object('args', enqueue.args, 'kwargs', enqueue.kwargs))::text, 'UTF8')
    );
    PERFORM pg_notify('{channel}', enqueue.queue);
    RETURN made_id;
END
$function$;

INSERT INTO {s}.meta (version, oldest) VALUES (4, 1);
