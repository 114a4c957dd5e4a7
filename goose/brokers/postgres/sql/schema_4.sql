-- schema_4.sql: version 4 of the tables lets groups take turns (ADR 23).
--
-- While a job with a group is ready in a queue, what gets ready there has a turn for a rank, which is
-- above {turns}, and so behind all instants. A statement that makes such a job ready writes {turns}
-- itself, which is no place, and the trigger puts the job's turn there.

CREATE INDEX jobs_turns ON {s}.jobs (queue, coalesce(grp, ''), rank) WHERE state = 1 AND rank > {turns};

-- Whether groups take turns in a queue. As the owner of the tables, since who may add a job need not be
-- able to read others'; so is the trigger.
CREATE FUNCTION {s}.shares(name text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT EXISTS (SELECT FROM {s}.jobs WHERE state = 1 AND queue = name AND rank > {turns})
$function$;

-- A turn is one more than that of the last ready job of its group, and not less than the first one
-- there is.
CREATE FUNCTION {s}.take_turn() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    NEW.rank := greatest(
        {turns} + 1,
        (SELECT rank FROM {s}.jobs WHERE state = 1 AND rank > {turns} AND queue = NEW.queue
         ORDER BY rank LIMIT 1),
        (SELECT rank + 1 FROM {s}.jobs WHERE state = 1 AND rank > {turns} AND queue = NEW.queue
            AND coalesce(grp, '') = coalesce(NEW.grp, '')
         ORDER BY rank DESC LIMIT 1)
    );
    RETURN NEW;
END
$function$;
REVOKE ALL ON FUNCTION {s}.take_turn FROM PUBLIC;
CREATE TRIGGER take_turn BEFORE INSERT OR UPDATE OF rank ON {s}.jobs
    FOR EACH ROW WHEN (NEW.rank = {turns}) EXECUTE FUNCTION {s}.take_turn();

INSERT INTO {s}.meta (version, oldest) VALUES (4, 1);
