"""One transaction for many callers: what they share, and what they are kept from."""

from __future__ import annotations

import fcntl
import os
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.sqlite import SQLiteBroker
from goose.brokers.sqlite import writer as writer_module
from goose.brokers.sqlite.connections import WAL_LIMIT
from goose.brokers.sqlite.writer import Writer, _Turn
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope

SESSION = Session("worker")
SHARES = [Share("mail")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "jobs.db"


@pytest.fixture
def broker(path: Path) -> Iterator[SQLiteBroker]:
    """A broker with an open session."""
    broker = SQLiteBroker(path, timeout=5)
    broker.open(SESSION, ttl=30)
    yield broker
    broker.close()


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    """A writer on a file with one table, ``t``."""
    writer = Writer(str(path), "full")
    writer.run(lambda c: c.execute("CREATE TABLE t (x UNIQUE)"), "", 5)
    yield writer
    writer.close()


def job(name: str, size: int = 10) -> Envelope:
    """Return an envelope with a body of *size* bytes."""
    return Envelope(name, "mail", b"x" * size)


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the file's write lock as another program would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def together(
    writer: Writer,
    works: list[Callable[[sqlite3.Connection], object]],
    path: Path,
    wait_until: Callable[..., None],
) -> list[object]:
    """Run *works* from a thread each, so that all of them wait for one lock; return what came."""
    results: list[object] = [None] * len(works)

    def run(number: int) -> None:
        try:
            results[number] = writer.run(works[number], "", 10)
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            results[number] = error

    with locked(path):
        first = threading.Thread(target=lambda: writer.run(lambda _: None, "", 10))
        first.start()
        wait_until(writer._lead.locked, what="a leader that waits for the lock")
        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(works))]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(writer._waiting) == len(works), what="all waiting")
    for thread in (first, *threads):
        thread.join()
    return results


def insert(value: object) -> Callable[[sqlite3.Connection], object]:
    """Return a work that inserts *value*, and returns it."""

    def work(connection: sqlite3.Connection) -> object:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        return value

    return work


def values(path: Path) -> list[object]:
    """Return what is in the table, as another program sees it."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT x FROM t ORDER BY x").fetchall()
    connection.close()
    return [value for (value,) in rows]


def test_waiting_callers_share_a_transaction(
    writer: Writer, path: Path, wait_until: Callable[..., None]
) -> None:
    """Eight callers that wait at once are committed together, each with its own result."""
    statements: list[str] = []
    connection = writer._connections.writer(True)
    connection.set_trace_callback(statements.append)
    results = together(writer, [insert(n) for n in range(8)], path, wait_until)
    connection.set_trace_callback(None)
    assert list(range(8)) == results
    assert list(range(8)) == values(path)
    assert 2 == statements.count("COMMIT"), "one for the first caller, one for all the others"


def test_an_error_hurts_only_its_caller(
    writer: Writer, path: Path, wait_until: Callable[..., None]
) -> None:
    """A work that fails half-way is undone and told; its neighbours are committed."""

    def fails(connection: sqlite3.Connection) -> object:
        connection.execute("INSERT INTO t VALUES ('half')")
        raise KeyError("mine")

    works = [insert(1), fails, insert(1), insert(2)]
    results = together(writer, works, path, wait_until)
    assert [1, 2] == values(path)
    assert isinstance(results[1], KeyError)
    kinds = sorted(type(result).__name__ for result in results)
    assert ["BrokerError", "KeyError", "int", "int"] == kinds


def test_when_sqlite_undoes_everything_the_others_run_again(
    writer: Writer, path: Path, wait_until: Callable[..., None]
) -> None:
    """A full disk in one work rolls back the whole transaction; the others are stored all the same."""
    connection = writer._connections.writer(True)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    works = [insert(1), insert("x" * 100_000), insert(2)]
    results = together(writer, works, path, wait_until)
    assert [1, 2] == values(path)
    assert isinstance(results[1], BrokerUnavailable)
    assert [1, 2] == [results[0], results[2]]


def test_an_interrupted_leader_leaves_the_others_unharmed(writer: Writer, path: Path) -> None:
    """A KeyboardInterrupt in the leader undoes its transaction; who waited is served by the next."""

    def interrupted(connection: sqlite3.Connection) -> object:
        connection.execute("INSERT INTO t VALUES ('interrupted')")
        raise KeyboardInterrupt

    other = _Turn(insert(1), "", 5, durable=True)
    writer._waiting.append(other)
    with pytest.raises(KeyboardInterrupt):
        writer.run(interrupted, "", 5)
    assert [] == values(path)
    assert not other.done
    assert 2 == writer.run(insert(2), "", 5)
    assert (True, 1) == (other.done, other.result)
    assert [1, 2] == values(path)


@pytest.mark.parametrize("company", [False, True])
def test_an_interrupt_leaves_no_transaction_open(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch, company: bool
) -> None:
    """Wherever a KeyboardInterrupt hits, the file is free for others, and the writer goes on."""
    begin = writer._begin

    def interrupted(durable: bool = False) -> sqlite3.Connection:
        begin(durable)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_begin", interrupted)
        if company:
            writer._waiting.append(_Turn(insert(3), "", 5, durable=True))
        with pytest.raises(KeyboardInterrupt):
            writer.run(insert(1), "", 5)
    with locked(path):
        pass
    assert 2 == writer.run(insert(2), "", 5)
    assert [2, 3][: 1 + company] == values(path)


def test_a_lone_caller_that_fails_leaves_nothing(writer: Writer, path: Path) -> None:
    """What a lone work did before it raised is undone, and its error comes in Goose's words."""

    def fails(connection: sqlite3.Connection) -> object:
        connection.execute("INSERT INTO t VALUES (1)")
        return connection.execute("INSERT INTO t VALUES (1)")

    with pytest.raises(BrokerError, match="UNIQUE"):
        writer.run(fails, "", 5)
    assert [] == values(path)
    assert 2 == writer.run(insert(2), "", 5)


def test_an_interrupted_reader_freezes_nothing(writer: Writer) -> None:
    """A read transaction that an interrupt left open is not what later readers see."""

    def interrupted(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM t").fetchall()
        raise KeyboardInterrupt

    writer.run(lambda c: c.execute("CREATE TABLE IF NOT EXISTS t (x)"), "", 5)
    with pytest.raises(KeyboardInterrupt):
        writer.read(interrupted, "", 5)
    writer.run(lambda c: c.execute("INSERT INTO t VALUES ('later')"), "", 5)

    later = "SELECT count(*) FROM t WHERE x = 'later'"
    assert (1,) == writer.read(lambda c: c.execute(later).fetchone(), "", 5)


def test_an_interrupt_after_the_commit_repeats_nothing(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed counts as done for all who shared it, also when the leader is interrupted."""
    finish = writer_module._finish
    calls = iter([KeyboardInterrupt, None])

    def interrupted(batch: list[_Turn]) -> None:
        if error := next(calls):
            raise error
        finish(batch)

    monkeypatch.setattr(writer_module, "_finish", interrupted)
    other = _Turn(insert(1), "", 5, durable=True)
    writer._waiting.append(other)
    with pytest.raises(KeyboardInterrupt):
        writer.run(insert(2), "", 5)
    assert (True, 1) == (other.done, other.result)
    assert [1, 2] == values(path)


def test_a_long_transaction_elsewhere_is_waited_for(
    broker: SQLiteBroker, path: Path, wait_until: Callable[..., None]
) -> None:
    """While another program writes, an enqueue waits, and then is stored."""
    with locked(path):
        thread = threading.Thread(target=broker.enqueue, args=([job("one")],))
        thread.start()
        wait_until(broker._writer._lead.locked)
    thread.join(5)
    assert 1 == broker.count(State.READY)


def test_a_file_in_exclusive_use_is_waited_for(path: Path, wait_until: Callable[..., None]) -> None:
    """Also the very first opening, which changes the file's mode, waits for its turn."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE mine (x)")
    other.execute("BEGIN EXCLUSIVE")
    broker = SQLiteBroker(path)
    thread = threading.Thread(target=broker.enqueue, args=([job("one")],))
    thread.start()
    wait_until(broker._writer._connections.writing.locked)
    other.close()
    thread.join(5)
    assert 1 == broker.count(State.READY)
    broker.close()


def test_waiting_ends_at_the_timeout(path: Path) -> None:
    """When another program never ends its transaction, callers are told so in Goose's words."""
    broker = SQLiteBroker(path, timeout="50ms")
    broker.migrate()
    with locked(path), pytest.raises(BrokerUnavailable, match="another writer"):
        broker.enqueue([job("one")])
    broker.enqueue([job("two")])
    assert 1 == broker.count(State.READY)
    broker.close()


def test_an_idle_worker_needs_no_lock(broker: SQLiteBroker, path: Path) -> None:
    """With nothing to take, a dequeue comes back although another program holds the file."""
    with locked(path):
        assert [] == list(broker.dequeue(SESSION, SHARES, limit=1, wait=0.01))
        assert [] == list(broker.recover(SESSION, limit=1))
        assert 0 == broker.promote_due(limit=1).promoted


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size* bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing(broker: SQLiteBroker, path: Path) -> None:
    """A settle that cannot be written leaves the job on loan; it works when there is room again."""
    broker.enqueue([job("one")])
    lent = broker.dequeue(SESSION, SHARES, limit=1, wait=0)
    with no_more_than(os.stat(f"{path}-wal").st_size), pytest.raises(BrokerUnavailable):
        broker.ack(lent)
    assert 1 == broker.count(State.RUNNING)
    assert [] == list(broker.ack(lent))
    assert None is broker.find("one")


def test_the_log_is_bounded_when_only_clients_write(broker: SQLiteBroker, path: Path) -> None:
    """Megabytes of jobs pass through the log, its file stays small, and the jobs are there."""
    size = 0
    for number in range(100):
        broker.enqueue([job(f"{number}-{n}", 20_000) for n in range(10)])
        size = max(size, os.stat(f"{path}-wal").st_size)
    assert WAL_LIMIT < size < 2 * WAL_LIMIT
    assert os.stat(path).st_size > 3 * WAL_LIMIT, "nothing was copied into the database"
    assert 1000 == broker.count(State.READY)


def test_a_long_reader_delays_the_checkpoint_only(broker: SQLiteBroker, path: Path) -> None:
    """While another program reads on, writers go on; when it ends, the log is cut back."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM goose_jobs").fetchone()
    for number in range(50):
        broker.enqueue([job(f"{number}-{n}", 20_000) for n in range(10)])
    assert os.stat(f"{path}-wal").st_size > 2 * WAL_LIMIT
    reader.close()
    assert broker._writer.checkpoint()
    broker.enqueue([job("next")])
    assert os.stat(f"{path}-wal").st_size <= WAL_LIMIT


def test_one_process_checkpoints_at_a_time(broker: SQLiteBroker, path: Path) -> None:
    """While somebody holds the lock beside the file, a checkpoint is left to them."""
    broker.enqueue([job("one")])
    assert broker._writer.checkpoint()
    with Path(f"{path}-checkpoint").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not broker._writer.checkpoint()
    assert broker._writer.checkpoint()


def test_no_connection_checkpoints_by_itself(broker: SQLiteBroker) -> None:
    """Neither of our connections copies the log behind the others' backs."""
    assert 0 == broker.count(State.READY)
    connections = broker._writer._connections
    for connection in (connections.writer(True), connections.reader()):
        assert (0,) == connection.execute("PRAGMA wal_autocheckpoint").fetchone()


def test_checkpoints_hold_the_write_lock(broker: SQLiteBroker, path: Path) -> None:
    """Nobody can write while the log is copied, which old SQLite versions do not survive."""
    copy = broker._writer._copy_log
    seen: list[bool] = []

    def copy_while_another_tries() -> bool:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        seen.append(copy())
        return seen[-1]

    broker._writer._copy_log = copy_while_another_tries  # type: ignore[method-assign]
    broker.enqueue([job("one")])
    broker._writer.checkpoint()
    assert [True] == seen


def child_exit(work: Callable[[], object]) -> int:
    """Fork, run *work* in the child, and return its exit code: 0 if it returned true."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def enqueue(broker: SQLiteBroker, name: str) -> bool:
    """Store a job of that name; for a child."""
    broker.enqueue([job(name)])
    return True


def test_both_sides_of_a_fork_go_on(broker: SQLiteBroker) -> None:
    """A broker used before a fork stores from the child and from the parent."""
    broker.enqueue([job("before")])

    def in_child() -> bool:
        broker.enqueue([job("child")])
        return broker.count(State.READY) == 2

    assert 0 == child_exit(in_child)
    broker.enqueue([job("parent")])
    assert 3 == broker.count(State.READY)


def test_a_child_has_locks_of_its_own(broker: SQLiteBroker, path: Path) -> None:
    """After a fork the child's connection is locked for the child, not by the parent's memory.

    Otherwise the file could be deleted under it when the parent ends.
    """
    broker.enqueue([job("one")])

    def in_child() -> bool:
        broker.count(State.READY)
        held = Path("/proc/locks").read_text().splitlines()
        place = f":{os.stat(path).st_ino}"
        return any(
            line.split()[4] == str(os.getpid()) and line.split()[5].endswith(place) for line in held
        )

    assert 0 == child_exit(in_child)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_amid_a_transaction_waits_for_it(
    broker: SQLiteBroker, path: Path, wait_until: Callable[..., None]
) -> None:
    """Threads that write all the while lose nothing when the process forks."""
    enough = threading.Event()
    stored: list[str] = []

    def write() -> None:
        while not enough.is_set():
            name = f"job-{len(stored)}"
            broker.enqueue([job(name)])
            stored.append(name)

    thread = threading.Thread(target=write)
    thread.start()
    codes = []
    for number in range(3):
        seen = len(stored)
        wait_until(lambda seen=seen: len(stored) > seen + 5)
        codes.append(child_exit(partial(enqueue, broker, f"child-{number}")))
    enough.set()
    thread.join(10)
    assert [0, 0, 0] == codes
    assert len(stored) + 3 == broker.count(State.READY)


def test_inherited_connections_are_never_closed(
    broker: SQLiteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a thread does not let go before the fork, the child leaves its connection alone."""
    monkeypatch.setattr("goose.brokers.sqlite.connections._FORK_PATIENCE", 0.01)
    broker.enqueue([job("one")])
    connections = broker._writer._connections
    inherited = connections._writer
    with connections.writing:
        code = child_exit(lambda: connections._writer is None and _is_open(inherited))
    assert 0 == code
    broker.enqueue([job("two")])
    assert 2 == broker.count(State.READY)


def _is_open(connection: sqlite3.Connection | None) -> bool:
    assert connection is not None
    return not connection.in_transaction


def test_corruption_is_told(path: Path) -> None:
    """A damaged file is an error with advice, not an endless retry."""
    broker = SQLiteBroker(path)
    broker.enqueue([job(f"{n}", 3000) for n in range(50)])
    broker.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(20 * 4096))
    broken = SQLiteBroker(path)
    with pytest.raises(BrokerError, match="recover"):
        broken.count(State.READY)
    broken.close()
