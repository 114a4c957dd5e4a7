"""What the SQLite broker promises beyond the suite: its URL, its order, its clocks, its file."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from goose.brokers.base import (
    Broker,
    Delivery,
    Inspector,
    Session,
    Sessions,
    Share,
    State,
    Transactional,
    Upkeep,
)
from goose.brokers.sqlite import SQLiteBroker, host, upkeep
from goose.errors import BrokerError, BrokerUnavailable, ConfigError, SessionLost
from goose.jobs import Envelope

SESSION = Session("worker")
SHARES = [Share("mail")]


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
def uptime() -> Clock:
    """The clock of sessions."""
    return Clock(500.0)


@pytest.fixture
def broker(tmp_path: Path, wall: Clock, uptime: Clock) -> Iterator[SQLiteBroker]:
    """A broker under turned clocks, with an open session."""
    broker = SQLiteBroker(tmp_path / "jobs.db", wall=wall, uptime=uptime)
    broker.open(SESSION, ttl=30)
    yield broker
    broker.close()


def job(
    name: str, queue: str = "mail", *, delay: float | None = None, due_at: float | None = None
) -> Envelope:
    """Return an envelope."""
    return Envelope(name, queue, name.encode(), delay, due_at)


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """Hold the write lock of the file, as another program might."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def take(broker: SQLiteBroker, limit: int = 100, session: Session = SESSION) -> list[Delivery]:
    """Lend what is ready."""
    return list(broker.dequeue(session, SHARES, limit=limit, wait=0))


@contextmanager
def another_program(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as a program without Goose; commit and close at the end."""
    connection = sqlite3.connect(path)
    with connection:
        yield connection
    connection.close()


def names(deliveries: list[Delivery]) -> list[str]:
    """Return the ids."""
    return [delivery.envelope.id for delivery in deliveries]


# --- where -------------------------------------------------------------------------------


def test_it_is_everything_a_broker_can_be(broker: SQLiteBroker) -> None:
    """It implements the protocol and every optional companion it is made for."""
    for part in (Broker, Sessions, Upkeep, Inspector, Transactional):
        assert isinstance(broker, part)


def test_urls_are_relative_or_absolute(tmp_path: Path) -> None:
    """Three slashes name a file beside us, four one anywhere; options follow."""
    assert str(Path.cwd() / "a b.db") == SQLiteBroker("sqlite:///a%20b.db").options.path
    broker = SQLiteBroker(
        f"sqlite:///{tmp_path}/x.db?synchronous=normal&dead_max_age=2d&dead_max_count=5", timeout=3
    )
    options = broker.options
    assert (str(tmp_path / "x.db"), "normal", 172800.0, 5, 3.0) == (
        options.path,
        options.synchronous,
        options.dead_max_age,
        options.dead_max_count,
        options.timeout,
    )


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://", "sqlite:///relative.db"),
        ("sqlite://host/jobs.db", "sqlite:///relative.db"),
        ("sqlite:///jobs.db?sinchronous=full", "synchronous"),
        ("sqlite:///jobs.db?synchronous=off", "full or normal"),
        ("sqlite:///jobs.db?namespace=a-b", "A-Z"),
        ("sqlite:///jobs.db?dead_max_age=long", "180d"),
        ("sqlite:///jobs.db?dead_max_count=-1", "0 or more"),
        ("sqlite:///jobs.db?dead_max_count=ten", "dead_max_count = 'ten' of .* a whole number"),
    ],
)
def test_a_wrong_url_says_what_is_right(url: str, hint: str) -> None:
    """A URL or option that cannot be is refused before anything is touched, with a way out."""
    with pytest.raises(ConfigError, match=hint):
        SQLiteBroker(url)


def test_nothing_is_touched_before_the_first_use(tmp_path: Path) -> None:
    """Making a broker makes no file; the first use does."""
    broker = SQLiteBroker(tmp_path / "jobs.db")
    assert [] == list(tmp_path.iterdir())
    broker.migrate()
    assert (tmp_path / "jobs.db").exists()
    broker.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Without its directory, the first use fails at once and names it."""
    broker = SQLiteBroker(tmp_path / "missing" / "jobs.db")
    with pytest.raises(ConfigError, match="missing"):
        broker.enqueue([job("one")])


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file of something else is an error with advice, and is left as it is."""
    path = tmp_path / "jobs.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BrokerError, match="no sound SQLite database"):
        SQLiteBroker(path).enqueue([job("one")])
    assert path.read_bytes().startswith(b"not a database")


def test_tables_of_a_later_goose_are_refused(tmp_path: Path) -> None:
    """A file written by a later version is not touched; the error says to upgrade."""
    path = tmp_path / "jobs.db"
    first = SQLiteBroker(path)
    first.migrate()
    first.close()
    with another_program(path) as connection:
        connection.execute("UPDATE goose_meta SET version = 99")
    broker = SQLiteBroker(path)
    with pytest.raises(BrokerError, match="upgrade"):
        broker.enqueue([job("one")])
    broker.close()


def test_a_closed_broker_says_so(broker: SQLiteBroker) -> None:
    """After close, a use is an error rather than a new connection."""
    broker.close()
    with pytest.raises(BrokerError, match="closed"):
        broker.enqueue([job("one")])


def test_brokers_of_one_file_share_its_writer(tmp_path: Path) -> None:
    """Closing one of two brokers on a file, by whatever path, leaves the other at work."""
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs.db")
    one, two = SQLiteBroker(tmp_path / "jobs.db"), SQLiteBroker(tmp_path / "link.db")
    one.enqueue([job("one")])
    one.close()
    two.enqueue([job("two")])
    assert 2 == two.count(State.READY)
    two.close()


def test_a_replaced_file_is_opened_anew(tmp_path: Path) -> None:
    """When the file is deleted under a running broker, jobs go to the new file, not to nowhere."""
    path = tmp_path / "jobs.db"
    broker = SQLiteBroker(path)
    broker.enqueue([job("old")])
    for file in tmp_path.iterdir():
        file.unlink()
    broker.enqueue([job("new")])
    broker.close()
    with another_program(path) as connection:
        assert [("new",)] == connection.execute("SELECT id FROM goose_jobs").fetchall()


def test_the_full_setting_syncs_what_must_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are stored and settled with synchronous=FULL; loans need no sync of the disk."""
    broker = SQLiteBroker(tmp_path / "jobs.db")
    broker.open(SESSION, ttl=30)
    levels: list[int] = []
    connections = broker._writer._connections
    writer = connections.writer

    def spy(durable: bool) -> sqlite3.Connection:
        connection = writer(durable)
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        return connection

    monkeypatch.setattr(connections, "writer", spy)
    broker.enqueue([job("one")])
    lent = take(broker)
    broker.ack(lent)
    full, normal = 2, 1
    assert [full, normal, full] == levels
    broker.close()


def test_strange_rows_do_not_stop_a_queue(broker: SQLiteBroker, tmp_path: Path) -> None:
    """What another program stored badly, as text or in bad UTF-8, is lent like any other job."""
    with another_program(tmp_path / "jobs.db") as connection:
        for name in ("X'6964'", "CAST(X'FF6964' AS TEXT)"):
            connection.execute(
                "INSERT INTO goose_jobs (id, queue, state, rank, at, grp, body) "
                f"VALUES ({name}, 'mail', 1, 0, 0, CAST(X'FF' AS TEXT), 'text')"
            )
    broker.enqueue([job("good")])
    lent = take(broker)
    assert ["id", "\ufffdid", "good"] == names(lent)
    assert [b"text", b"text", b"good"] == [delivery.envelope.body for delivery in lent]
    assert 3 == len(broker.page(State.RUNNING).items)
    assert [] == list(broker.bury([(delivery, delivery.envelope) for delivery in lent]))
    assert 3 == broker.count(State.DEAD)


# --- order and time ------------------------------------------------------------------------


def test_order_survives_a_wall_clock_set_back(broker: SQLiteBroker, wall: Clock) -> None:
    """First in is first out although the clock went back an hour between the two."""
    broker.enqueue([job("first")])
    wall.now -= 3600
    broker.enqueue([job("second")])
    assert ["first", "second"] == names(take(broker))


def test_requeued_jobs_keep_their_order(broker: SQLiteBroker) -> None:
    """Jobs requeued in one call line up in the order given, behind the backlog."""
    broker.enqueue([job(name) for name in "abcd"])
    lent = take(broker, 3)
    broker.requeue([(delivery, delivery.envelope) for delivery in reversed(lent)])
    assert ["d", "c", "b", "a"] == names(take(broker))


def test_dequeue_promotes_for_itself(broker: SQLiteBroker, wall: Clock) -> None:
    """A due job is lent without any upkeep, at its instant and not a millisecond before."""
    broker.schedule([job("later", delay=0.5)])
    wall.now += 0.499
    assert [] == take(broker)
    wall.now += 0.001
    lent = take(broker)
    assert ["later"] == names(lent)
    assert 1_000_000.5 == lent[0].ready_at


def test_an_idle_dequeue_wakes_at_the_due_instant(tmp_path: Path) -> None:
    """A waiting dequeue lends a scheduled job within milliseconds of its instant, never early."""
    broker = SQLiteBroker(tmp_path / "jobs.db")
    broker.open(SESSION, ttl=30)
    late = []
    for number in range(5):
        due_at = time.time() + 0.05
        broker.schedule([job(f"{number}", due_at=due_at)])
        assert broker.dequeue(SESSION, SHARES, limit=1, wait=5.0)
        late.append(time.time() - due_at)
    assert -0.000_001 <= min(late) < 0.025
    broker.close()


def test_a_claim_after_a_full_one_may_find_nothing(broker: SQLiteBroker) -> None:
    """It goes without a look, and what it meets is told as ever: nothing, then a new job."""
    broker.enqueue([job("a"), job("b")])
    assert ["a", "b"] == [delivery.envelope.id for delivery in take(broker, limit=2)]

    assert [] == take(broker, limit=2)
    broker.enqueue([job("c")])
    assert ["c"] == [delivery.envelope.id for delivery in take(broker, limit=2)]


def test_an_empty_queue_needs_no_lock_but_once_after_a_full_claim(tmp_path: Path) -> None:
    """While another program holds the file, one claim that expected more fails; then it looks."""
    path = tmp_path / "jobs.db"
    broker = SQLiteBroker(path, timeout=0.05)
    broker.open(SESSION, ttl=30)
    broker.enqueue([job("a")])
    assert 1 == len(take(broker, limit=1))
    with held_by_another(path):
        with pytest.raises(BrokerUnavailable):
            take(broker, limit=1)

        assert [] == take(broker, limit=1)
    broker.close()


def test_promotion_over_queues_is_bounded_and_ordered(broker: SQLiteBroker, wall: Clock) -> None:
    """One round promotes up to its limit, the queue that waits longest first, and says 0 if more wait."""
    broker.schedule([job("a", "mail", delay=2), job("b", "other", delay=1), job("c", delay=9)])
    wall.now += 5
    first = broker.promote_due(limit=1)
    assert (1, 0.0) == (first.promoted, first.next_due_in)
    assert ["b"] == [item.envelope.id for item in broker.page(State.READY).items]
    second = broker.promote_due(limit=10)
    assert (1, 4.0) == (second.promoted, second.next_due_in)


def test_the_oldest_is_seen_behind_prioritised_jobs(broker: SQLiteBroker, wall: Clock) -> None:
    """A young job in front does not hide how long the oldest has waited."""
    broker.enqueue([job("old")])
    wall.now += 10
    broker.enqueue([job("young")])
    broker.prioritise(["young"])
    assert [10.0] == [stats.oldest for stats in broker.queues()]


def test_a_wrong_page_is_refused(broker: SQLiteBroker) -> None:
    """A place that no listing gave out is an error, not an empty page."""
    with pytest.raises(BrokerError, match=r"Page\.next"):
        broker.page(State.READY, after="nonsense")


# --- sessions ----------------------------------------------------------------------------


def test_wall_clock_jumps_kill_nobody(broker: SQLiteBroker, wall: Clock) -> None:
    """A wall clock set an hour forth and back leaves sessions and loans alone."""
    other = Session("other")
    broker.open(other, ttl=30)
    broker.enqueue([job("one")])
    lent = take(broker)
    for jump in (3600, -7200):
        wall.now += jump
        assert [] == list(broker.recover(other, limit=10))
    assert [] == list(broker.ack(lent))


def test_a_suspended_host_ends_sessions(broker: SQLiteBroker, uptime: Clock) -> None:
    """Sessions are measured by the clock since boot: 31 silent seconds end one of 30."""
    other = Session("other")
    broker.open(other, ttl=3600)
    broker.enqueue([job("one")])
    take(broker)
    uptime.now += 31
    assert ["one"] == names(list(broker.recover(other, limit=10)))


def test_a_session_of_another_boot_is_dead_at_once(
    broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot nobody waits for deadlines that the old boot's clock counted."""
    broker.enqueue([job("one")])
    take(broker)
    here = host.current()
    monkeypatch.setattr(
        host, "current", lambda: host.Process("next boot", here.namespace, here.pid, here.started)
    )
    other = Session("other")
    broker.open(other, ttl=30)
    with pytest.raises(SessionLost):
        take(broker)
    assert ["one"] == names(list(broker.recover(other, limit=10, proven=True)))


def test_a_gone_process_is_proof(broker: SQLiteBroker) -> None:
    """A session whose opener was killed is recovered at once by proof; a living one is not."""
    child = os.fork()
    if child == 0:
        broker.open(Session("child"), ttl=3600)
        broker.enqueue([job("one")])
        take(broker, session=Session("child"))
        os._exit(0)
    os.waitpid(child, 0)
    orphans = broker.recover(SESSION, limit=10, proven=True)
    assert [("one", Session("child"))] == [(d.envelope.id, d.orphan_of) for d in orphans]
    assert [] == list(broker.recover(SESSION, limit=10, proven=True))
    broker.heartbeat(SESSION, ttl=30)


def test_processes_are_recognised() -> None:
    """This process is there, one of another start time is gone, and elsewhere nothing is certain."""
    here = host.current()
    assert not here.is_gone()
    assert host.Process(here.boot, here.namespace, here.pid, here.started + 1).is_gone()
    assert not host.Process(here.boot, here.namespace + 1, here.pid, here.started + 1).is_gone()
    assert host.Process("another", here.namespace, here.pid, here.started).is_gone()


def test_a_stray_loan_is_found_by_the_audit(broker: SQLiteBroker, tmp_path: Path) -> None:
    """A loan whose session does not exist at all is given to who audits."""
    broker.enqueue([job("one")])
    lent = take(broker)
    with another_program(tmp_path / "jobs.db") as connection:
        connection.execute("DELETE FROM goose_sessions")
    other = Session("other")
    broker.open(other, ttl=30)
    found = list(broker.audit(other, limit=10))
    assert [("one", other, None)] == [(d.envelope.id, d.session, d.orphan_of) for d in found]
    assert lent == list(broker.ack(lent))
    assert [] == list(broker.ack(found))


def test_names_of_ended_sessions_are_forgotten(broker: SQLiteBroker, wall: Clock) -> None:
    """The table of sessions does not grow for ever: a week after its end a name is free."""
    other = Session("other")
    broker.open(other, ttl=30)
    assert broker.end(other)
    wall.now += 6 * 86400
    with pytest.raises(BrokerError):
        broker.open(other, ttl=30)
    wall.now += 2 * 86400
    broker.open(other, ttl=30)


# --- dead jobs ---------------------------------------------------------------------------


def test_dead_jobs_are_trimmed_per_queue(
    tmp_path: Path, wall: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each queue keeps its newest dead jobs; what is too old goes from every queue."""
    monkeypatch.setattr(
        upkeep, "_SLOW", math.inf
    )  # on a crowded machine it would rest after the first
    broker = SQLiteBroker(tmp_path / "jobs.db", wall=wall, dead_max_count=2, dead_max_age="10s")
    broker.open(SESSION, ttl=30)
    for queue, count in (("mail", 4), ("other", 1)):
        broker.enqueue([job(f"{queue}-{number}", queue) for number in range(count)])
        lent = broker.dequeue(SESSION, [Share(queue)], limit=10, wait=0)
        for delivery in lent:
            wall.now += 0.5
            broker.bury([(delivery, delivery.envelope)])
    assert 2 == broker.promote_due(limit=10).trimmed
    left = [item.envelope.id for item in broker.page(State.DEAD).items]
    assert ["mail-2", "mail-3", "other-0"] == left
    wall.now += 9.25
    assert 1 == broker.promote_due(limit=10).trimmed
    assert ["mail-3", "other-0"] == [item.envelope.id for item in broker.page(State.DEAD).items]
    broker.close()


# --- the caller's own transaction ------------------------------------------------------------


def test_another_file_is_refused(broker: SQLiteBroker, tmp_path: Path) -> None:
    """A connection of another database cannot promise anything; both files are named."""
    for place in (":memory:", str(tmp_path / "other.db")):
        connection = sqlite3.connect(place)
        with pytest.raises(ConfigError, match=f"(?s){place}.*jobs.db"):
            broker.enqueue_within(connection, [job("one")])
        connection.close()


def test_missing_tables_name_the_fix(tmp_path: Path) -> None:
    """In a file the broker never used, the error says what makes the tables."""
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("CREATE TABLE mine (x)")
    broker = SQLiteBroker(tmp_path / "jobs.db")
    with pytest.raises(BrokerError, match="migrate"):
        broker.enqueue_within(connection, [job("one")])
    connection.close()


def test_a_job_joins_the_callers_writes(broker: SQLiteBroker, tmp_path: Path) -> None:
    """With Python's default transactions, job and row commit, or roll back, as one."""
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.row_factory = lambda *_: {"rows": "of the caller's kind"}
    connection.text_factory = bytes
    connection.execute("CREATE TABLE mine (x)")
    for end, count in ((connection.rollback, 0), (connection.commit, 1)):
        connection.execute("INSERT INTO mine VALUES (1)")
        broker.enqueue_within(connection, [job("one")])
        assert 0 == broker.count(State.READY)
        end()
        assert count == broker.count(State.READY)
    connection.close()


def test_a_failed_enqueue_leaves_the_callers_writes(broker: SQLiteBroker, tmp_path: Path) -> None:
    """When one job cannot be stored none of its call is, and the transaction goes on."""
    connection = sqlite3.connect(tmp_path / "jobs.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.execute("INSERT INTO mine VALUES (1)")
    bad = Envelope("bad", "mail", object())  # type: ignore[arg-type]
    with pytest.raises(BrokerError):
        broker.enqueue_within(connection, [*[job(f"{n}") for n in range(200)], bad])
    connection.commit()
    assert [(1,)] == connection.execute("SELECT x FROM mine").fetchall()
    assert 0 == broker.count(State.READY)
    connection.close()


def test_autocommit_needs_a_transaction(broker: SQLiteBroker, tmp_path: Path) -> None:
    """In autocommit mode the caller must have begun one, else it is refused and nothing stored."""
    connection = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    with pytest.raises(ConfigError, match="BEGIN IMMEDIATE"):
        broker.enqueue_within(connection, [job("one")])
    connection.execute("BEGIN IMMEDIATE")
    broker.enqueue_within(connection, [job("two")])
    connection.execute("COMMIT")
    assert ["two"] == names(take(broker))
    connection.close()


def test_a_caller_who_cannot_write_now_is_told(broker: SQLiteBroker, tmp_path: Path) -> None:
    """When another program holds the file, the caller gets Goose's error, not SQLite's."""
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    connection = sqlite3.connect(tmp_path / "jobs.db", timeout=0)
    with pytest.raises(BrokerUnavailable, match="locked"):
        broker.enqueue_within(connection, [job("one")])
    other.execute("ROLLBACK")
    other.close()
    connection.close()
