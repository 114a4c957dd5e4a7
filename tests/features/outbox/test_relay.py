"""The relay: what it does when broker, database or another relay get in its way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.features.outbox import Outbox, Relay
from goose.features.outbox.relay import BATCH, FIRST, SUSPECTS
from goose.jobs import Envelope, Job, seal
from goose.metrics.fanout import Fanout
from tests.features.outbox.conftest import Place, ready


def put(place: Place, *ids: str, queue: str = "mail", body: bytes | None = None) -> None:
    """Insert jobs of these ids, and commit."""
    sealed = [seal(Job(each, "app:fn", queue=queue)) for each in ids]
    if body is not None:
        sealed = [envelope.evolve(body=body) for envelope in sealed]
    with closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as connection:
        Outbox(place.name).enqueue_within(connection, sealed)
        connection.commit()


def execute(place: Place, query: str) -> list[tuple[Any, ...]]:
    """Run one statement on the table, as an operator would."""
    with closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as connection:
        rows = connection.execute(query.replace("{t}", place.name)).fetchall()
        connection.commit()
        return rows


class Fussy(MemoryBroker):
    """A broker that fails for some envelopes, and remembers every call."""

    def __init__(self, fails: Callable[[Sequence[Envelope]], Exception | None]) -> None:
        super().__init__()
        self.fails = fails
        self.calls: list[list[str]] = []

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        self.calls.append([envelope.id for envelope in envelopes])
        error = self.fails(envelopes)
        if error is not None:
            raise error
        super().enqueue(envelopes)


def rounds(relay: Relay, count: int) -> list[str]:
    """Move that many times; return what was raised."""
    raised = []
    for _ in range(count):
        try:
            relay.move()
        except BrokerError as error:
            raised.append(str(error))
    return raised


class Counting:
    """A metrics backend that keeps sums and the last gauges."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], int] = {}
        self.gauges: dict[tuple[str, str, str], float] = {}

    def increment(self, name: str, value: int, tags: Any) -> None:
        key = (name, tags["queue"])
        self.sums[key] = self.sums.get(key, 0) + value

    def gauge(self, name: str, value: float, tags: Any) -> None:
        self.gauges[name, tags.get("queue", ""), tags.get("state", "")] = value

    def timing(self, name: str, seconds: float, tags: Any) -> None: ...


def test_rows_are_moved_in_the_order_of_insertion(
    sqlite: Place, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """More rows than a batch, of two queues, arrive in their order, and the table is empty then."""
    ids = [f"j{n:04}" for n in range(FIRST + BATCH + 20)]
    put(sqlite, *reversed(ids))
    put(sqlite, "other", queue="default")
    relay = relaying(sqlite)

    assert [FIRST + 1, BATCH, 20, 0] == [relay.move() for _ in range(4)]
    assert [*reversed(ids)] == ready(broker, "mail")
    assert ["other"] == ready(broker, "default")
    assert [] == sqlite.table().figures()


def test_large_rows_are_moved_few_at_a_time(
    sqlite: Place, relaying: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a relay holds in memory is bounded by the size of the rows before."""
    monkeypatch.setattr("goose.features.outbox.relay.BYTES", 8000)
    put(sqlite, *(f"j{n:03}" for n in range(FIRST + 20)), body=b"x" * 1000)
    relay = relaying(sqlite)

    assert [FIRST, 8, 8, 4, 0] == [relay.move() for _ in range(5)]


def test_what_the_broker_refuses_stops_nobody(
    sqlite: Place, relaying: Callable[..., Relay], caplog: pytest.LogCaptureFixture
) -> None:
    """A refused row waits and is tried again later; those around it are moved, each sent alone once."""
    broker = Fussy(lambda es: BrokerError("too large") if "bad" in [e.id for e in es] else None)
    counting = Counting()
    put(sqlite, "a", "bad", "b", "c")
    relay = relaying(sqlite, broker, metrics=Fanout([counting]))

    assert 3 == relay.move()
    assert [["a", "bad", "b", "c"], ["a"], ["bad"], ["b"], ["c"]] == broker.calls
    [figures] = sqlite.table().figures()
    assert (1, 1, "too large") == (figures.waiting, figures.refused, figures.problem)
    assert 0 == relay.move()
    assert ["job bad waits in the outbox: the broker refuses it: too large"] == [
        record.getMessage() for record in caplog.records if record.levelname == "ERROR"
    ]
    relay.measure()
    assert {("outbox.moved", "mail"): 3, ("outbox.refused", "mail"): 1} == counting.sums
    assert 1 == counting.gauges["outbox.size", "mail", "refused"]
    assert 0 == counting.gauges["outbox.size", "mail", "waiting"]

    broker.fails = lambda _: None
    execute(sqlite, "UPDATE {t} SET retry_at = 1")
    assert 1 == relay.move()
    relay.measure()
    assert 0 == counting.gauges["outbox.size", "mail", "refused"]


def test_a_row_that_looks_like_an_outage_stops_nobody(
    sqlite: Place, relaying: Callable[..., Relay]
) -> None:
    """A body that breaks the connection is found by others getting through, and then waits."""

    def fails(envelopes: Sequence[Envelope]) -> Exception | None:
        return BrokerUnavailable("gone") if "bad" in [e.id for e in envelopes] else None

    broker = Fussy(fails)
    put(sqlite, "bad", "a", "b")
    relay = relaying(sqlite, broker)
    assert ["gone"] * 3 == rounds(relay, 4)

    assert ["a", "b"] == ready(broker)
    [figures] = sqlite.table().figures()
    assert (1, 1, "gone") == (figures.waiting, figures.refused, figures.problem)


def test_no_number_of_such_rows_stops_the_others(
    sqlite: Place, relaying: Callable[..., Relay]
) -> None:
    """Also behind more of them than are passed over at a time, the sound row is moved."""

    def fails(envelopes: Sequence[Envelope]) -> Exception | None:
        bad = [e.id for e in envelopes if e.id.startswith("bad")]
        return BrokerUnavailable("gone") if bad else None

    broker = Fussy(fails)
    put(sqlite, *(f"bad{n}" for n in range(2 * SUSPECTS)), "good")
    relay = relaying(sqlite, broker)
    rounds(relay, 3 * SUSPECTS)

    assert ["good"] == ready(broker)


def test_an_outage_changes_nothing_but_time(sqlite: Place, relaying: Callable[..., Relay]) -> None:
    """While the broker is away every row stays as it is; then all are moved, none marked."""
    down = True
    broker = Fussy(lambda _: BrokerUnavailable("away") if down else None)
    put(sqlite, *(f"j{n}" for n in range(8)))
    relay = relaying(sqlite, broker)
    assert ["away"] * 5 == rounds(relay, 5)
    [figures] = sqlite.table().figures()
    assert (8, 0, None) == (figures.waiting, figures.refused, figures.problem)
    down = False

    assert [] == rounds(relay, 3)
    assert {f"j{n}" for n in range(8)} == set(ready(broker))
    assert [] == sqlite.table().figures()


def test_a_broker_that_is_full_gets_pauses_and_then_everything(
    sqlite: Place, relaying: Callable[..., Relay]
) -> None:
    """Refusals of all rows end the round early; once it takes jobs again, they all go there."""
    full = True
    broker = Fussy(lambda _: BrokerError("OOM") if full else None)
    put(sqlite, *(f"j{n:03}" for n in range(100)))
    relay = relaying(sqlite, broker)
    assert ["OOM"] == rounds(relay, 1)
    assert 11 == len(broker.calls)
    full = False
    execute(sqlite, "UPDATE {t} SET retry_at = 1 WHERE retry_at IS NOT NULL")

    rounds(relay, 2)
    assert {f"j{n:03}" for n in range(100)} == set(ready(broker))


def test_one_queue_that_fails_is_not_all_of_them(
    sqlite: Place, relaying: Callable[..., Relay]
) -> None:
    """What cannot be moved in one queue does not keep the next queue's jobs; the error is told after."""
    broker = Fussy(lambda es: BrokerUnavailable("gone") if es[0].queue == "a" else None)
    put(sqlite, "stuck", queue="a")
    put(sqlite, "free", queue="b")

    assert ["gone"] == rounds(relaying(sqlite, broker), 1)
    assert ["free"] == ready(broker)


def test_rows_that_are_no_jobs_wait_and_say_so(
    sqlite: Place, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """A queue or id that nothing can have is marked; a body that is no job is for the worker to bury."""
    put(sqlite, "garbage", body=b"\xff not a job")
    insert = "INSERT INTO {t} (id, queue, body) VALUES "
    execute(sqlite, insert + "('x', 'no queue!', 'b')")
    execute(sqlite, insert + "('', 'mail', 'b')")
    relay = relaying(sqlite)
    rounds(relay, 2)

    assert ["garbage"] == ready(broker)
    found = {figures.queue: figures for figures in sqlite.table().figures()}
    assert (1, "its id is no id") == (found["mail"].refused, found["mail"].problem)
    assert "cannot name a queue" in (found["no queue!"].problem or "")


def test_one_relay_at_a_time_moves_a_queue(
    sqlite: Place, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """A second relay leaves a queue alone until the first lets go of it, or is silent for its lease."""
    first, second, third = (relaying(sqlite) for _ in range(3))
    put(sqlite, "a")
    assert (1, 0) == (first.move(), second.move())
    put(sqlite, "b")
    assert (0, 1) == (second.move(), first.move())
    assert 0 == first.move(), "nothing is left, and the lease goes on"
    first.close()
    put(sqlite, "c")
    assert 1 == second.move()
    put(sqlite, "d")
    assert 0 == third.move()
    execute(sqlite, "UPDATE {t}_relays SET expires_at = 1")
    assert 1 == third.move()
    assert ["a", "b", "c", "d"] == ready(broker)


def test_leases_on_every_database(place: Place, relaying: Callable[..., Relay]) -> None:
    """A lease is one relay's until it ends by the database's clock, and can be prolonged by that one."""
    table = place.table()

    assert table.lease("mail", "me", 60)
    assert not table.lease("mail", "you", 60)
    assert table.lease("mail", "me", 60)
    assert table.lease("other", "you", -1)
    assert table.lease("other", "me", 60)
    table.let_go("me")
    assert table.lease("mail", "you", 60)
    table.database.close()


def test_refusals_wait_on_every_database(place: Place) -> None:
    """A row that was set back is not claimed until its time, which doubles; the figures tell of it."""
    table = place.table()
    first_row = Envelope("a", "mail", b"{}")
    table.database.change(Outbox(place.name)._plan([first_row, first_row.evolve(id="b")]))
    [first, second] = table.claim("mail", limit=10)
    for _ in range(12):
        table.set_back(first.seq, "too large")

    assert [second.seq] == [row.seq for row in table.claim("mail", limit=10)]
    assert [] == table.claim("mail", limit=10, without=[second.seq])
    [figures] = table.figures()
    assert (2, 1, "too large") == (figures.waiting, figures.refused, figures.problem)
    assert 0 <= figures.oldest < 60
    table.delete([first.seq, second.seq])
    assert [] == table.queues()
    table.database.close()


def test_a_relay_that_slept_through_its_lease_sends_nothing(
    sqlite: Place, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """What was read before a long pause is another's by now."""
    clock = [0.0]
    relay = relaying(sqlite, lease=30.0, mono=lambda: clock[0])
    put(sqlite, "a")
    claim = relay._table.claim

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock[0] += 20
        return claim(*args, **kwargs)

    relay._table.claim = slow  # type: ignore[method-assign]
    assert 0 == relay.move()
    relay._table.claim = claim  # type: ignore[method-assign]
    assert 1 == relay.move()


def test_what_was_moved_and_not_deleted_is_not_sent_again(
    sqlite: Place, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """When the deletion fails, the same relay deletes before it sends anything."""
    fussy = Fussy(lambda _: None)
    relay = relaying(sqlite, fussy)
    delete = relay._table.delete

    def fail(_: Any) -> None:
        raise BrokerUnavailable("database away")

    put(sqlite, "a")
    relay.move()
    put(sqlite, "b")
    calls = iter([delete, fail, fail, delete, delete, delete])
    relay._table.delete = lambda seqs: next(calls)(seqs)  # type: ignore[method-assign]  # noqa: PLW0108 - another each time
    assert ["database away"] * 2 == rounds(relay, 3)

    assert [["a"], ["b"]] == fussy.calls
    assert [] == sqlite.table().figures()


def test_pauses_grow_while_there_is_nothing(sqlite: Place, relaying: Callable[..., Relay]) -> None:
    """An idle relay looks ever more rarely, up to every half second; work brings it back at once."""
    relay = relaying(sqlite)
    assert [0.04, 0.08, 0.16, 0.32, 0.5, 0.5] == [relay.step(n) for n in range(6)]
    put(sqlite, "a")
    assert [0.0, 0.04] == [relay.step(9.0), relay.step(9.1)]


def test_a_database_that_is_away_is_said(own_folder: Any) -> None:
    """A file that is not there, and a server that does not answer, are outages and no defects."""
    for url in (
        "sqlite:///gone.db",
        "postgresql://x@127.0.0.1:1/x",
        "mysql+pymysql://x@127.0.0.1:1/x",
    ):
        with pytest.raises(BrokerUnavailable):
            Place(url, "t").table().queues()
    assert not (own_folder / "gone.db").exists()
