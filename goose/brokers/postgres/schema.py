"""Makes the tables, and knows which versions of them go together.

Changes of the tables only add to them, so programs of an earlier version of Goose go on while
a later one migrates; ``meta.oldest`` says from when on that is no more so. Only one migrates
at a time, under a lock that ends with its transaction.
"""

from __future__ import annotations

from goose.brokers.postgres.connections import Connection
from goose.brokers.postgres.statements import VERSION, script, statement
from goose.errors import BrokerError

_PATIENCE = 60.0
"""Seconds a migration may take."""
_TIMEOUTS = "SET LOCAL statement_timeout = '54s'; SET LOCAL lock_timeout = '30s'"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('goose:' || %s, 0))"


def version_of(connection: Connection, schema: str) -> int:
    """Return the version of the tables in *schema*, 0 where there are none.

    Raises:
        BrokerError: They are of a version that this Goose is too old for.
    """
    # Asked first, as an error would stand in the server's log.
    if connection.execute(statement("present", schema)).fetchone() != (1,):
        return 0
    row = connection.execute(statement("version", schema)).fetchone()
    if row is None:
        return 0
    version, oldest = row
    if oldest > VERSION:
        raise BrokerError(
            f"the tables in the schema {schema} are of version {version}, this Goose knows "
            f"{VERSION}: upgrade goose-jobs here"
        )
    return int(version)


def migrate(connection: Connection, schema: str) -> None:
    """Make the tables, or what they lack; harmless if they are there.

    Raises:
        psycopg.Error: The server refused, for example for lack of a privilege.
    """
    connection.patience = _PATIENCE
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        connection.execute(_TIMEOUTS, prepare=False)
        connection.execute(_LOCK, [schema])
        found = version_of(connection, schema)
        if found < VERSION:
            connection.execute(script(schema, found).encode(), prepare=False)
        connection.execute("COMMIT")
    except BaseException:
        if not connection.closed:
            connection.pgconn.exec_(b"ROLLBACK")
        raise
