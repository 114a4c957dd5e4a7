-- schema.sql: every table and index, as version 1 of them.
--
-- One row per stored job, in one of four states, each with a small index of its own, so that a
-- change of state touches little and a finished job leaves nothing behind. Instants are whole
-- microseconds since the epoch, by the server's clock.
--
-- jobs.rank   the place in the line, lowest first: the instant it became ready; of a scheduled
--             job the instant it is due, which it keeps when promoted; below zero if prioritised.
--             A loan keeps it, so that a released job is in front again.
-- jobs.at     since when the job is in its state; of a loan, since when it was ready
-- jobs.state  0 scheduled, 1 ready, 2 running, 3 dead
-- sessions.state  0 live, 1 dead with loans perhaps left, 2 only its name remembered

CREATE SCHEMA IF NOT EXISTS {s};

CREATE TABLE {s}.jobs (
    rank bigint NOT NULL,
    at bigint NOT NULL,
    holder bigint,
    receipt bigint,
    lent_at bigint,
    state smallint NOT NULL,
    id text COLLATE "C" PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    grp text,
    body bytea NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.2,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX jobs_scheduled ON {s}.jobs (rank) WHERE state = 0;
CREATE INDEX jobs_ready ON {s}.jobs (queue, rank) WHERE state = 1;
CREATE INDEX jobs_running ON {s}.jobs (holder) WHERE state = 2;
CREATE INDEX jobs_dead ON {s}.jobs (queue, rank) WHERE state = 3;

CREATE TABLE {s}.sessions (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deadline bigint NOT NULL,
    ended_at bigint,
    epoch integer NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    id text COLLATE "C" NOT NULL,
    UNIQUE (id, epoch)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

-- oldest: the oldest version of the tables whose programs may still use these.
-- home: tells these tables from others of the same name, in another database.
CREATE TABLE {s}.meta (
    version integer PRIMARY KEY,
    oldest integer NOT NULL,
    home uuid NOT NULL DEFAULT gen_random_uuid(),
    made_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {s}.meta (version, oldest) VALUES (1, 1);
