"""Finished jobs are kept for a period, and leave by whole partitions."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import goose
from goose import brokers
from goose.brokers.base import Delivery, Session, Share
from goose.brokers.completion import Archive
from goose.brokers.postgres import PostgresBroker
from goose.cli import main
from goose.errors import BrokerError, Unsupported
from goose.jobs import Envelope
from tests.brokers.postgres.roles import grant, make_roles
from tests.servers.postgres import PostgresServer

Make = Callable[..., PostgresBroker]
WEEK = "7d"
SLOT = 21_600_000_000


def count(n: int) -> None: ...


@pytest.fixture
def make(postgres_server: PostgresServer) -> Iterator[Make]:
    """Makes brokers on one fresh namespace, closed after the test."""
    made: list[PostgresBroker] = []
    namespace = uuid.uuid4().hex

    def connect(url: str = postgres_server.url, **options: Any) -> PostgresBroker:
        made.append(PostgresBroker(url, namespace=namespace, **{"keep_done": WEEK, **options}))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def lend(broker: PostgresBroker, *names: str) -> list[Delivery]:
    """Have a new session hold jobs of these ids."""
    session = Session(str(uuid.uuid4()))
    broker.open(session, ttl=60)
    broker.enqueue([Envelope(name, "mail", name.encode(), group="g") for name in names])
    return list(broker.dequeue(session, [Share("mail")], limit=len(names), wait=0))


def partitions(server: PostgresServer, broker: PostgresBroker) -> list[str]:
    """Return the names of the partitions."""
    query = "SELECT relname FROM pg_class WHERE relispartition AND relnamespace = %s::regnamespace AND relkind = 'r'"
    return sorted(name for (name,) in server.execute(query, [f'"{broker.options.schema}"']))


def test_what_is_done_is_kept(make: Make) -> None:
    """Acked jobs are listed, the last first, by pages; what was only released is not."""
    broker = make()
    loans = lend(broker, "a", "b", "c", "d")
    broker.ack(loans[:1])
    broker.ack(loans[1:2])
    broker.ack(loans[2:3])
    broker.release(loans[3:])

    assert isinstance(broker, Archive)
    first = broker.finished(limit=2)
    assert ["c", "b"] == [one.envelope.id for one in first]
    assert ("mail", b"c", "g") == (
        first[0].envelope.queue, first[0].envelope.body, first[0].envelope.group,
    )  # fmt: skip
    assert ["a"] == [one.envelope.id for one in broker.finished("mail", after=first[-1])]
    assert [] == list(broker.finished("bills"))


def test_a_zombie_keeps_nothing(make: Make) -> None:
    """An ack that is refused, or sent twice, leaves no finished job behind."""
    broker = make()
    loans = lend(broker, "a", "b")
    broker.release(loans[1:])
    assert loans[1:] == list(broker.ack(loans))
    assert loans == list(broker.ack(loans))

    assert ["a"] == [one.envelope.id for one in broker.finished()]


def test_transactional_jobs_are_kept_too(make: Make) -> None:
    """A job that ends by the commit of its own transaction is kept if that commits."""
    broker = make()
    for loan, commits in zip(lend(broker, "a", "b"), (True, False), strict=True):
        completion = broker.begin(loan)
        assert not commits or completion.commit()
        completion.close()

    assert ["a"] == [one.envelope.id for one in broker.finished()]


def test_old_partitions_are_dropped(make: Make, postgres_server: PostgresServer) -> None:
    """What ended longer ago than the period goes with its table; what did not stays."""
    broker = make()
    broker.ack(lend(broker, "new"))
    now = partitions(postgres_server, broker)
    assert 6 == len(now), "five slots ahead, and the rest"
    schema = broker.options.schema
    slot = int(now[0].removeprefix("done_"))
    for age in (20, 40):
        place, start = f'"{schema}".done_{slot - age}', (slot - age) * SLOT
        postgres_server.execute(
            f'CREATE TABLE {place} PARTITION OF "{schema}".done '
            f"FOR VALUES FROM ({start}) TO ({start + SLOT})"
        )
        values = [start, f"old-{age}"]
        postgres_server.execute(
            f"INSERT INTO \"{schema}\".done VALUES (%s, %s, 'mail', NULL, '')", values
        )
    broker._next_tidy = 0.0
    broker.promote_due(limit=1)

    assert ["new", "old-20"] == [one.envelope.id for one in broker.finished()]
    assert f"done_{slot - 40}" not in partitions(postgres_server, broker)


def test_a_missing_partition_stops_nobody(make: Make, postgres_server: PostgresServer) -> None:
    """Jobs that end where no partition is are kept in the rest, and go when they are over."""
    broker = make()
    loans = lend(broker, "a")
    schema = broker.options.schema
    for name in partitions(postgres_server, broker):
        if name != "done_rest":
            postgres_server.execute(f'DROP TABLE "{schema}".{name}')
    broker.ack(loans)
    broker._next_tidy = 0.0
    broker.promote_due(limit=1)
    assert ["a"] == [one.envelope.id for one in broker.finished()]

    postgres_server.execute(f'UPDATE "{schema}".done_rest SET at = 0')
    broker._next_tidy = 0.0
    broker.promote_due(limit=1)
    assert [] == list(broker.finished())


def test_with_a_workers_privileges(make: Make, postgres_server: PostgresServer) -> None:
    """A worker can keep and tidy up; a client can neither."""
    make_roles(postgres_server)
    owner = make()
    owner.migrate()
    with postgres_server.connect() as connection:
        grant(connection, owner.options.schema)
    worker = make(postgres_server.url_of("goose_worker"), migrate="off")
    worker.ack(lend(worker, "a"))

    assert 6 == len(partitions(postgres_server, owner))
    console = make(postgres_server.url_of("goose_console"), migrate="off")
    assert ["a"] == [one.envelope.id for one in console.finished()]
    client = make(postgres_server.url_of("goose_client"), migrate="off")
    with pytest.raises(BrokerError, match="privilege"):
        client._rows("keep_done", {"keep": 0})


def test_who_was_not_told_keeps_nothing(make: Make) -> None:
    """Without the option nothing is kept, and asking for it names the option."""
    broker = make(keep_done=0)
    broker.ack(lend(broker, "a"))

    with pytest.raises(Unsupported, match="keep_done=7d"):
        broker.finished()
    assert [] == list(make().finished())


def test_elsewhere_it_is_refused() -> None:
    """Other brokers say that they cannot, and what can."""
    for url in ("sqlite:///x.db", "redis://h", "memory://", "amqp://h"):
        with pytest.raises(Unsupported, match="PostgreSQL can keep them"):
            brokers.connect(f"{url}?keep_done=7d")


def test_goose_done_lists_them(
    make: Make,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``goose done`` shows the last ones, for people and as JSON."""
    broker = make()
    goose.Client(broker).using(queue="mail").enqueue(count, 1)
    session = Session("worker")
    broker.open(session, ttl=60)
    broker.ack(broker.dequeue(session, [Share("mail")], limit=1, wait=0))
    url = f"{postgres_server.url}?namespace={broker.options.namespace}&keep_done=7d"
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["goose", "done", "--broker", url, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        said = capsys.readouterr().out
        assert "test_postgres_archive:count" in said
    assert ["mail"] == [row["queue"] for row in json.loads(said)]
