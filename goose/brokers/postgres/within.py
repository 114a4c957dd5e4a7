"""Jobs inside a transaction of the caller's own, through the caller's own connection.

How statements are run on the many kinds of connections there are is `goose.within`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import psycopg

from goose import within
from goose.brokers.postgres.access import Access
from goose.brokers.postgres.arrays import teach, texts
from goose.brokers.postgres.rows import micros, stored
from goose.brokers.postgres.statements import statement
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope
from goose.within import Caller, Known, Plan, Rows, Statement


class Transacting(Access):
    """Implements `Transactional` and `AsyncTransactional`."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._checked = Known()

    def enqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """See `Transactional.enqueue_within`; workers see the jobs half a second after the commit.

        With ``notify=in_transaction`` in the broker's URL they are woken by the commit itself.

        Raises:
            ConfigError: *connection* is of another database, of no library that is known, in
                autocommit mode without a transaction, or one that must be awaited.
            BrokerError: The tables are missing there, or the database refused.
            BrokerUnavailable: It cannot be reached.
        """
        plan = self._plan(connection, envelopes, self._home_of_tables())
        try:
            within.run(connection, plan, adapt=teach)
        except (BrokerError, ConfigError):
            raise
        except Exception as error:
            raise self._said(within.cause_of(error)) from error

    async def aenqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """See `enqueue_within`; for psycopg's ``AsyncConnection`` and SQLAlchemy's kinds too."""
        home = self._home or await asyncio.to_thread(self._home_of_tables)
        plan = self._plan(connection, envelopes, home)
        try:
            await within.arun(connection, plan, adapt=teach)
        except (BrokerError, ConfigError):
            raise
        except Exception as error:
            raise self._said(within.cause_of(error)) from error

    def _plan(self, connection: Any, envelopes: Sequence[Envelope], home: str) -> Plan[None]:
        schema = self.options.schema
        in_arrays = isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection))
        notifies = self.options.notify == "in_transaction"

        def store(caller: Caller) -> Generator[Statement, Rows, None]:
            if caller.dialect != "postgresql":
                raise ConfigError(f"the connection is of {caller.dialect}, not of PostgreSQL")
            if caller.key not in self._checked:
                there = None
                if (yield Statement(statement("present", schema).decode())) == [(1,)]:
                    rows = yield Statement(statement("home", schema).decode())
                    there = rows[0][0] if rows else None
                self._check_home(there, home)
                self._checked.add(caller.key)
            if not envelopes:
                return
            queues = sorted({envelope.queue for envelope in envelopes})
            if in_arrays:
                # A lock would be held until the caller's transaction ends.
                query = statement("store", schema).decode()
                query = query.replace(f'"{schema}".in_order(l.queue, l.grp)', "1")
                yield Statement(query, stored(envelopes))
                if notifies:
                    named = {"queues": texts(queues)}
                    yield Statement(statement("notify", schema).decode(), named)
                return
            # Libraries pass on plain values only.
            query = statement("store_row", schema).decode()
            yield Statement(query, [_row(envelope) for envelope in envelopes])
            for queue in queues if notifies else ():
                yield Statement(statement("notify_one", schema).decode(), {"queue": queue})

        return store

    def _check_home(self, there: object, home: str) -> None:
        if there is None:
            raise BrokerError(
                f"the connection's database has no tables in the schema {self.options.schema}; is "
                f"it another than the broker's, {self.options.where}?"
            )
        if there != home:
            raise ConfigError(
                f"the connection is of another database than the broker's, {self.options.where}: a "
                "job can join a transaction only of the broker's own database"
            )


def _row(envelope: Envelope) -> Mapping[str, Any]:
    return {
        "id": envelope.id,
        "queue": envelope.queue,
        "group": envelope.group,
        "body": envelope.body,
        "delay": None if envelope.delay is None else micros(envelope.delay),
        "due_at": None if envelope.due_at is None else micros(envelope.due_at),
    }
