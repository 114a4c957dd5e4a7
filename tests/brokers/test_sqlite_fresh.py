"""Fresh rows: what a lone enqueue stores, and who puts it in line."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.sqlite import SQLiteBroker
from goose.errors import BrokerError
from goose.jobs import Envelope

SESSION = Session("worker")


class Clock:
    """Time that passes when told."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Clock:
    """The clock of due instants."""
    return Clock(1_000_000.0)


@pytest.fixture
def broker(tmp_path: Path, wall: Clock) -> Iterator[SQLiteBroker]:
    """A broker whose first lone enqueue, which puts others in line, is past."""
    broker = SQLiteBroker(tmp_path / "jobs.db", wall=wall)
    broker.open(SESSION, ttl=30)
    broker.enqueue([job("first")])
    broker.ack(broker.dequeue(SESSION, [Share("mail")], limit=1, wait=0))
    yield broker
    broker.close()


def job(name: str, queue: str = "mail") -> Envelope:
    """Return an envelope that is ready."""
    return Envelope(name, queue, name.encode())


def take(broker: SQLiteBroker, *queues: str) -> list[str]:
    """Lend all that is ready; return the ids."""
    shares = [Share(queue) for queue in queues or ("mail",)]
    lent = broker.dequeue(SESSION, shares, limit=100, wait=0)
    return [delivery.envelope.id for delivery in lent]


def fresh(broker: SQLiteBroker) -> list[str]:
    """Return the ids that are not in line, as a program without Goose sees them."""
    with closing(sqlite3.connect(broker.options.path)) as connection:
        found = connection.execute("SELECT id FROM goose_jobs WHERE state = 4 ORDER BY seq")
        return [name for (name,) in found]


def test_a_lone_enqueue_writes_the_row_and_no_index(broker: SQLiteBroker) -> None:
    """It is fresh until somebody looks; then it is ready like any other."""
    broker.enqueue([job("a")])
    assert ["a"] == fresh(broker)

    assert 1 == broker.count(State.READY)
    assert [] == fresh(broker)


@pytest.mark.parametrize(
    "look",
    [
        take,
        lambda broker: take(broker, "other"),
        lambda broker: broker.queues(),
        lambda broker: broker.count(State.DEAD),
        lambda broker: broker.page(State.READY),
        lambda broker: broker.find("a"),
        lambda broker: broker.delete(["x"], state=State.READY),
        lambda broker: broker.prioritise(["x"]),
        lambda broker: broker.purge(State.DEAD),
        lambda broker: broker.schedule([Envelope("later", "mail", b"", delay=60)]),
        lambda broker: broker.enqueue([job("c"), job("d")]),
    ],
    ids=[
        *["dequeue", "dequeue of another queue", "queues", "count", "page", "find", "delete"],
        *["prioritise", "purge", "schedule", "enqueue many"],
    ],
)
def test_whoever_comes_next_puts_it_in_line(
    broker: SQLiteBroker, look: Callable[[SQLiteBroker], object]
) -> None:
    """Every look at the jobs and every change of them leaves no row fresh."""
    broker.enqueue([job("a")])
    broker.enqueue([job("b")])
    look(broker)

    assert [] == fresh(broker)


def test_order_is_by_the_enqueue_not_by_the_look(broker: SQLiteBroker, wall: Clock) -> None:
    """Fresh jobs come after those in line, each behind those enqueued before it."""
    broker.enqueue([job("a"), job("b")])
    wall.now += 1
    broker.enqueue([job("c")])
    wall.now -= 3600  # the wall clock goes back between two fresh ones
    broker.enqueue([job("d")])
    broker.enqueue([job("e", "other")])
    wall.now += 7200
    broker.enqueue([job("f")])
    broker.enqueue([job("g"), job("h")])

    assert ["a", "b", "c", "d", "f", "g", "h"] == take(broker)
    assert ["e"] == take(broker, "other")


def test_an_id_is_stored_once_though_its_copies_are_fresh(broker: SQLiteBroker) -> None:
    """The first of several fresh copies stays, and none if the id was in line already."""
    broker.enqueue([job("old"), job("older")])
    for name in ("old", "new", "new", "old"):
        broker.enqueue([Envelope(name, "mail", f"copy of {name}".encode())])

    assert ["old", "older", "new"] == take(broker)
    assert 3 == broker.count(State.RUNNING)
    assert 0 == broker.count(State.READY)


def test_a_copy_that_came_while_it_ran_does_not_run_again(broker: SQLiteBroker) -> None:
    """An enqueue repeated while its job runs changes nothing, though nobody looked before the ack."""
    broker.enqueue([job("a")])
    lent = broker.dequeue(SESSION, [Share("mail")], limit=1, wait=0)
    broker.enqueue([job("a")])
    broker.ack(lent)

    assert [] == take(broker)


def test_it_has_its_place_in_a_transaction_too(broker: SQLiteBroker) -> None:
    """A job stored in a caller's transaction comes behind fresh ones, committed or not."""
    broker.enqueue([job("a")])
    with closing(sqlite3.connect(broker.options.path)) as connection:
        broker.enqueue_within(connection, [job("never")])
        connection.rollback()
        assert ["a"] == fresh(broker)
        broker.enqueue_within(connection, [job("b")])
        connection.commit()

    assert ["a", "b"] == take(broker)


def test_few_ever_wait_for_a_place(broker: SQLiteBroker) -> None:
    """Every five hundredth lone enqueue puts the others in line, if nobody else does."""
    most = 0
    for number in range(1_200):
        broker.enqueue([job(f"{number:04d}")])
        if number % 100 == 99:
            most = max(most, len(fresh(broker)))

    assert 300 < most <= 500
    assert 1_200 == broker.count(State.READY)


def test_a_worker_of_another_object_is_told(tmp_path: Path, broker: SQLiteBroker) -> None:
    """An idle dequeue elsewhere lends a fresh job as it comes."""
    broker.enqueue([job("a")])
    other = SQLiteBroker(tmp_path / "jobs.db")
    lent = other.dequeue(SESSION, [Share("mail")], limit=1, wait=5)
    other.close()

    assert ["a"] == [delivery.envelope.id for delivery in lent]


def test_tables_from_before_are_refused(tmp_path: Path) -> None:
    """A file whose tables are of an older version is not touched, and the error says so."""
    path = tmp_path / "old.db"
    broker = SQLiteBroker(path)
    broker.migrate()
    broker.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE goose_meta SET version = 1")
    broker = SQLiteBroker(path)

    with pytest.raises(BrokerError, match=r"version 1.*take another file"):
        broker.enqueue([job("a")])
    broker.close()
