"""How databases differ, as far as an outbox meets it: a table of words, and what makes the tables.

Two tables. The first has a row for each job that waits to be moved; its ``seq`` is the order of
insertion, and is never used twice. The second says which relay moves which queue, and until when.
Instants are microseconds since 1970 by the database's clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from goose.errors import ConfigError

TABLE = "goose_outbox"
"""Name of the table unless somebody says otherwise."""
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)


def check_table(name: str) -> str:
    """Return *name*, or raise `ConfigError` if it cannot name an outbox table."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.80} cannot name an outbox table: use up to 40 of the characters a-z 0-9 _, "
            "the first no digit"
        )
    return name


def table_for(given: str | None, broker: object) -> str:
    """Return the name of the table whose jobs go to *broker*.

    Those of two namespaces must not meet in one table, from which a relay moves all to one of them.

    Args:
        given: The setting ``outbox_table``.
        broker: Its URL, or the broker itself.

    Raises:
        ConfigError: *given* cannot name a table.
    """
    if given is not None:
        return check_table(given)
    query = urlsplit(broker).query if isinstance(broker, str) else ""
    namespace = dict(parse_qsl(query)).get("namespace", "")
    plain = re.sub(r"[^a-z0-9]+", "_", namespace.lower(), flags=re.ASCII)
    return check_table(f"{TABLE}_{plain}"[:40] if plain else TABLE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words of one kind of database. ``{t}`` stands for the table's name."""

    now: str
    """This instant."""
    present: str
    """Asks whether the table is there: 1 or 0."""
    keep_first: str
    """Ends an insert that leaves out ids which are there already."""
    lease: str
    """Has a relay hold a queue, unless another one does."""
    locking: str
    """Ends a select of what is to be moved; see `Table.claim`."""
    schema: tuple[str, ...]
    """Makes the tables, if they are missing."""

    def fill(self, query: str, table: str) -> str:
        """Return *query* with the name of the table, and what differs, in it."""
        words = {"t": table, "now": self.now, "keep_first": self.keep_first}
        for word, meaning in (words | {"locking": self.locking}).items():
            query = query.replace(f"{{{word}}}", meaning)
        return query

    def script(self, table: str) -> list[str]:
        """Return the statements that make the tables."""
        return [self.fill(part, table) for part in self.schema]


_LEASE = (
    "INSERT INTO {t}_relays (queue, holder, expires_at) "
    "VALUES (%(queue)s, %(holder)s, {now} + %(lease)s) "
)
_ON_CONFLICT = _LEASE + (
    "ON CONFLICT (queue) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at "
    "WHERE {t}_relays.holder = excluded.holder OR {t}_relays.expires_at <= {now}"
)
# Assignments are made from left to right: the second sees what the first has made of the holder.
_ON_DUPLICATE = _LEASE + (
    "ON DUPLICATE KEY UPDATE holder = IF(expires_at <= {now}, VALUES(holder), holder), "
    "expires_at = IF(holder = VALUES(holder), VALUES(expires_at), expires_at)"
)

_POSTGRES = Dialect(
    now="CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
    present="SELECT CASE WHEN to_regclass('{t}') IS NULL THEN 0 ELSE 1 END",
    keep_first="ON CONFLICT (id) DO NOTHING",
    lease=_ON_CONFLICT,
    locking="FOR UPDATE SKIP LOCKED",
    schema=(
        "SELECT pg_advisory_xact_lock(hashtextextended('{t}', 0))",
        """\
CREATE TABLE IF NOT EXISTS {t} (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    queue text NOT NULL,
    grp text,
    body bytea NOT NULL,
    delay bigint,
    due_at bigint,
    stored_at bigint NOT NULL DEFAULT {now},
    tries integer NOT NULL DEFAULT 0,
    retry_at bigint,
    problem text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000)""",
        "CREATE INDEX IF NOT EXISTS {t}_queue ON {t} (queue, seq)",
        "CREATE INDEX IF NOT EXISTS {t}_retry ON {t} (queue, retry_at) WHERE retry_at IS NOT NULL",
        """\
CREATE TABLE IF NOT EXISTS {t}_relays (
    queue text PRIMARY KEY,
    holder text NOT NULL,
    expires_at bigint NOT NULL
)""",
    ),
)

_SQLITE = Dialect(
    now="CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    present="SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '{t}'",
    keep_first="ON CONFLICT (id) DO NOTHING",
    lease=_ON_CONFLICT,
    locking="",
    schema=(
        # AUTOINCREMENT: a number that was used is not used again, even if its row is gone.
        """\
CREATE TABLE IF NOT EXISTS {t} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    grp TEXT,
    body BLOB NOT NULL,
    delay INTEGER,
    due_at INTEGER,
    stored_at INTEGER NOT NULL DEFAULT ({now}),
    tries INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER,
    problem TEXT
)""",
        "CREATE INDEX IF NOT EXISTS {t}_queue ON {t} (queue, seq)",
        "CREATE INDEX IF NOT EXISTS {t}_retry ON {t} (queue, retry_at) WHERE retry_at IS NOT NULL",
        """\
CREATE TABLE IF NOT EXISTS {t}_relays (
    queue TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    expires_at INTEGER NOT NULL
)""",
    ),
)

_MYSQL = Dialect(
    # Not UNIX_TIMESTAMP, which reads its argument in the session's time zone, an hour of which
    # comes twice a year.
    now="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    present=(
        "SELECT count(*) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = '{t}'"
    ),
    keep_first="ON DUPLICATE KEY UPDATE seq = seq",
    lease=_ON_DUPLICATE,
    locking="FOR UPDATE SKIP LOCKED",
    schema=(
        """\
CREATE TABLE IF NOT EXISTS {t} (
    seq BIGINT AUTO_INCREMENT PRIMARY KEY,
    id VARCHAR(255) NOT NULL UNIQUE,
    queue VARCHAR(100) NOT NULL,
    grp VARCHAR(255),
    body LONGBLOB NOT NULL,
    delay BIGINT,
    due_at BIGINT,
    stored_at BIGINT NOT NULL,
    tries INT NOT NULL DEFAULT 0,
    retry_at BIGINT,
    problem TEXT,
    INDEX {t}_queue (queue, seq),
    INDEX {t}_retry (queue, retry_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin""",
        """\
CREATE TABLE IF NOT EXISTS {t}_relays (
    queue VARCHAR(100) PRIMARY KEY,
    holder VARCHAR(100) NOT NULL,
    expires_at BIGINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin""",
    ),
)

DIALECTS: Mapping[str, Dialect] = {"postgresql": _POSTGRES, "sqlite": _SQLITE, "mysql": _MYSQL}
"""By the name of `goose.within.Caller.dialect`."""


def dialect_of(name: str) -> Dialect:
    """Return the dialect of that name.

    Raises:
        ConfigError: It is of a kind of database that is not known here.
    """
    if name not in DIALECTS:
        raise ConfigError(
            f"the connection is of {name}; an outbox can be in PostgreSQL, SQLite, MySQL or MariaDB"
        )
    return DIALECTS[name]
