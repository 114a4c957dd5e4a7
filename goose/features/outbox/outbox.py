"""Puts jobs into an outbox table, inside a transaction of the caller's own."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from goose import within
from goose.errors import BrokerError, ConfigError
from goose.features.outbox.dialects import TABLE, check_table, dialect_of
from goose.jobs import Envelope
from goose.within import Caller, Known, Plan, Rows, Statement

_COLUMNS = ("id", "queue", "grp", "body", "delay", "due_at")


class Outbox:
    """One table, in whatever database a connection is of. Thread-safe.

    Implements `Transactional` and `AsyncTransactional`, so that a client's way into it is the same
    as into a broker's own tables.
    """

    def __init__(self, table: str = TABLE) -> None:
        self.table = check_table(table)
        self._checked = Known()

    def enqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes* through *connection*, so that they exist if and only if it commits.

        One whose id waits in the table already is left out.

        Raises:
            ConfigError: *connection* is of no kind that is known, in autocommit mode without a
                transaction, or must be awaited.
            BrokerError: The table is missing, or the database refused. Nothing was stored.
        """
        try:
            within.run(connection, self._plan(envelopes))
        except (BrokerError, ConfigError):
            raise
        except Exception as error:
            raise self._said(error) from error

    async def aenqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """See `enqueue_within`; for connections that are awaited too."""
        try:
            await within.arun(connection, self._plan(envelopes))
        except (BrokerError, ConfigError):
            raise
        except Exception as error:
            raise self._said(error) from error

    def _said(self, error: Exception) -> BrokerError:
        # Whatever it was, a transaction that did not hear of success does not hold the jobs.
        said = " ".join(str(within.cause_of(error)).split())
        return BrokerError(f"the outbox {self.table} did not take them: {said}")

    def _plan(self, envelopes: Sequence[Envelope]) -> Plan[None]:
        def store(caller: Caller) -> Generator[Statement, Rows, None]:
            dialect = dialect_of(caller.dialect)
            if caller.key not in self._checked:
                # Asked first: an error would end the caller's transaction.
                if not (yield Statement(dialect.fill(dialect.present, self.table)))[0][0]:
                    raise missing(self.table)
                self._checked.add(caller.key)
            if envelopes:
                # One statement, so that it is all of them or none.
                rows = ", ".join(_row(number) for number in range(len(envelopes)))
                query = f"INSERT INTO {{t}} ({', '.join(_COLUMNS)}, stored_at) VALUES {rows} {{keep_first}}"
                values = {
                    f"{column}{number}": value
                    for number, envelope in enumerate(envelopes)
                    for column, value in zip(_COLUMNS, _values(envelope), strict=True)
                }
                yield Statement(dialect.fill(query, self.table), values, writes=True)

        return store


def missing(table: str) -> BrokerError:
    """Return what to raise where there is no outbox."""
    return BrokerError(
        f"there is no table {table} in this database: run `goose outbox migrate` once, or the "
        "statements that `goose outbox migrate --sql` prints"
    )


def _row(number: int) -> str:
    return f"({', '.join(f'%({column}{number})s' for column in _COLUMNS)}, {{now}})"


def _values(envelope: Envelope) -> tuple[Any, ...]:
    delay = None if envelope.delay is None else round(envelope.delay * 1e6)
    due_at = None if envelope.due_at is None else round(envelope.due_at * 1e6)
    return envelope.id, envelope.queue, envelope.group, envelope.body, delay, due_at
