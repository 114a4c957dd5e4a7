"""Lending connections, whatever befalls those who have them or wait for them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from goose._interrupts import raise_in
from goose.brokers import pooling
from goose.brokers.pooling import Loan, Pool
from tests.stopping import Stopped, stop_everywhere

LIMIT = 2
SOON = 1.0
"""Seconds; far below the patience of who waits."""
PATIENCE = 20.0


class Made:
    """Counts the connections that were made, and fails at will."""

    def __init__(self) -> None:
        self.count = 0
        self.error: BaseException | None = None

    def __call__(self) -> str:
        if self.error:
            raise self.error
        self.count += 1
        return f"connection {self.count}"


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def pool(made: Made) -> Pool[str]:
    return Pool(LIMIT, made)


def taken(pool: Pool[str], patience: float = 0.0) -> Loan[str]:
    """Return a loan; there must be one."""
    loan = pool.take(patience)
    assert loan is not None
    return loan


def use(pool: Pool[str]) -> None:
    """Take one and give it back."""
    loan = taken(pool)
    try:
        assert loan.connection
    finally:
        pool.give(loan)


class Waiter:
    """A thread that waits for a loan."""

    def __init__(self, pool: Pool[str]) -> None:
        self._pool = pool
        self.loan: Loan[str] | None = None
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.loan = self._pool.take(PATIENCE)
        except Stopped:
            self.stopped = True

    def end(self) -> Loan[str] | None:
        """Return what it got, soon."""
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "it waits though a place is free"
        return self.loan


@pytest.fixture
def wait_for_one(
    pool: Pool[str], monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> Callable[[], Waiter]:
    """Starts somebody who waits for a loan."""
    looks = 0
    real = Pool[str]._has_room

    def has_room(self: Pool[str]) -> bool:
        nonlocal looks
        looks += 1
        return real(self)

    monkeypatch.setattr(Pool, "_has_room", has_room)

    def start() -> Waiter:
        before = looks
        waiter = Waiter(pool)
        wait_until(lambda: looks > before)
        return waiter

    return start


def test_a_connection_is_lent_to_one_at_a_time(pool: Pool[str], made: Made) -> None:
    """No more are made than there may be, and one that was given back is lent again."""
    first, last = taken(pool), taken(pool)
    assert None is pool.take(0.0)
    assert pool.give(last)

    assert last is taken(pool)
    assert {"connection 1", "connection 2"} == {first.connection, last.connection}
    assert LIMIT == made.count


def test_many_callers_share_a_few(
    pool: Pool[str], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that take and give back at random never have one connection twice."""
    used: set[str] = set()

    def work(_: int) -> None:
        for _ in range(200):
            loan = taken(pool, PATIENCE)
            assert loan.connection not in used
            used.add(loan.connection)
            used.remove(loan.connection)
            pool.give(loan)

    monkeypatch.setattr(pooling, "LOOK", 0.001)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert made.count <= LIMIT


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "broken"])
def test_who_waits_is_woken(
    pool: Pool[str],
    wait_for_one: Callable[[], Waiter],
    monkeypatch: pytest.MonkeyPatch,
    keep: bool,
) -> None:
    """A loan that is given back goes to who waits for one, at once, with its connection or another."""
    monkeypatch.setattr(pooling, "LOOK", PATIENCE)  # he does not look by himself
    first, _last = taken(pool), taken(pool)
    waiter = wait_for_one()
    pool.give(first, keep=keep)

    loan = waiter.end()
    assert loan is not None
    assert keep == (loan.connection == "connection 1")


def test_all_who_wait_get_what_was_dropped(
    pool: Pool[str], wait_for_one: Callable[[], Waiter]
) -> None:
    """One ring for several places: the others look by themselves."""
    lent = [taken(pool) for _ in range(LIMIT)]
    waiters = [wait_for_one() for _ in range(LIMIT)]
    with pool._lock:
        for loan in lent:
            pool.give(loan)
        assert {"connection 1", "connection 2"} == {*pool.drop()}

    assert all(waiter.end() for waiter in waiters)


def test_a_waiter_that_is_stopped_takes_no_place_along(
    pool: Pool[str], wait_for_one: Callable[[], Waiter]
) -> None:
    """If who is woken is interrupted at that moment, the next one has the place soon."""
    first, _last = taken(pool), taken(pool)
    stopped, other = wait_for_one(), wait_for_one()
    with pool._lock:
        assert stopped.thread.ident
        raise_in(stopped.thread.ident, Stopped)
        pool.give(first)
    stopped.thread.join(SOON)

    assert stopped.stopped
    assert first is other.end()


def test_who_waits_when_all_is_closed_gets_one_of_his_own(
    pool: Pool[str], wait_for_one: Callable[[], Waiter]
) -> None:
    """Of loans that are given back after the close none is kept, and each makes room."""
    first, last = taken(pool), taken(pool)
    waiter = wait_for_one()
    assert [] == pool.close()
    assert not pool.give(first), "it is to be closed by who had it"

    assert waiter.end() is not None
    assert not pool.give(last)
    assert [] == pool.drop()


def test_an_error_that_is_kept_takes_no_place(pool: Pool[str], made: Made) -> None:
    """Failures to make a connection, and connections that broke, do not use up the limit."""
    kept: list[object] = []
    made.error = OSError("away")
    for _ in range(LIMIT + 1):
        with pytest.raises(OSError, match="away") as caught:
            pool.take(0.0)
        kept.append(caught.value)
    made.error = None
    for _ in range(LIMIT + 1):
        kept.append(loan := taken(pool))
        pool.give(loan, keep=False)
    kept += [taken(pool) for _ in range(LIMIT)]
    for loan in kept[-LIMIT:]:
        assert isinstance(loan, Loan)
        pool.give(loan)
    pool.drop()

    assert all(pool.take(0.0) for _ in range(LIMIT))


def test_who_is_stopped_at_any_step_costs_no_place(pool: Pool[str]) -> None:
    """A loan that nobody knows any more leaves its place, wherever its holder was interrupted."""
    assert 15 < stop_everywhere(lambda: use(pool), pooling)
    pool.drop()
    assert 15 < stop_everywhere(lambda: use(pool), pooling)

    lent = [taken(pool) for _ in range(LIMIT)]
    assert None is pool.take(0.0)
    del lent
    assert pool.take(0.0)


def test_a_child_finds_all_of_its_parents(pool: Pool[str], made: Made) -> None:
    """Those that are lent and those that are idle, but none that is not made yet."""
    lent, idle = taken(pool), taken(pool)
    pool.give(idle)
    assert {"connection 1", "connection 2"} == {*pool.all()}
    del lent
    assert ["connection 2"] == pool.all()
    pool.drop()

    found: list[list[str]] = []
    other: Pool[str] = Pool(LIMIT, lambda: found.append(other.all()) or "made")  # type: ignore[func-returns-value]
    taken(other)
    assert [[]] == found


def test_a_finalizer_may_take_and_give(pool: Pool[str]) -> None:
    """What comes into the midst of a take or a give on the same thread, and does the same, does not hang."""
    with pool._lock:
        use(pool)
