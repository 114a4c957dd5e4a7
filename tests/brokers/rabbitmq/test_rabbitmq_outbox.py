"""Jobs that come to RabbitMQ from an outbox."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import goose
from goose.brokers.base import Session, Share
from goose.features.outbox import Database, Relay, Table
from goose.metrics.fanout import Fanout
from tests.servers.rabbitmq import RabbitServer


def note(number: int) -> None: ...


def test_a_relay_that_is_lost_before_the_deletion_loses_nothing(
    rabbit_server: RabbitServer, own_folder: Path
) -> None:
    """What was confirmed and not deleted is there twice, for the next relay sends it again; nothing is missing."""
    client = goose.Client(f"{rabbit_server.url}?namespace=outbox")
    outbox = f"sqlite:///{own_folder}/app.db"
    tables = [Table(Database(outbox), "goose_outbox_outbox") for _ in range(2)]
    tables[0].migrate()
    with closing(sqlite3.connect("app.db")) as connection:
        jobs = client.using(outbox=connection).enqueue_many(note, [(n,) for n in range(30)])
        connection.commit()
        client.using(outbox=connection).enqueue(note, -1)
        connection.rollback()

    def lost(seqs: Sequence[int]) -> None:
        if seqs:
            raise KeyboardInterrupt

    tables[0].delete = lost  # type: ignore[method-assign]
    first, second = (Relay(client.broker, table, metrics=Fanout()) for table in tables)
    try:
        first.move()
    except KeyboardInterrupt:
        first.close()
    assert 30 == second.move()
    assert [] == tables[1].figures()
    second.close()

    session, found = Session("reader"), Counter[str]()
    while sum(found.values()) < 60:
        lent = client.broker.dequeue(session, [Share("default")], limit=100, wait=10.0)
        assert lent, found
        found.update(delivery.envelope.id for delivery in lent)
        client.broker.ack(lent)
    assert dict.fromkeys([job.id for job in jobs], 2) == found
    client.close()
