"""Lending connections, whatever befalls those who have them or wait for them."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest

from goose._interrupts import raise_in
from goose.brokers import pooling
from goose.brokers.pooling import Loan, Pool
from tests.stopping import Stopped, at_step, stop_everywhere

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
    return Pool(LIMIT, made, lambda _: None)


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
def wait_for_one(pool: Pool[str], wait_until: Callable[..., None]) -> Callable[[], Waiter]:
    """Starts somebody who waits for a loan."""

    def start() -> Waiter:
        before = len(pool._line)
        waiter = Waiter(pool)
        wait_until(lambda: len(pool._line) > before)
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
    assert 10 < stop_everywhere(lambda: use(pool), pooling)
    pool.drop()
    assert 10 < stop_everywhere(lambda: use(pool), pooling)

    lent = [taken(pool) for _ in range(LIMIT)]
    assert None is pool.take(0.0)
    del lent
    assert pool.take(0.0)


def test_who_has_waited_is_served_before_those_who_come(
    pool: Pool[str], wait_for_one: Callable[[], Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that takes and gives back without pause does not keep a place from the others for good."""
    lent = [taken(pool) for _ in range(LIMIT)]
    monkeypatch.setattr(pooling, "LOOK", PATIENCE)  # they do not look by themselves
    first, second = wait_for_one(), wait_for_one()
    with pool._lock:
        monkeypatch.setattr(pooling, "LOOK", 0.0)  # and have waited for long
        for loan in lent:
            pool.give(loan)
        assert None is pool.take(0.0)

    assert lent == [first.end(), second.end()]


def test_one_who_waits_no_more_is_passed_over(
    pool: Pool[str], wait_for_one: Callable[[], Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was interrupted and is still in the line takes nothing from the next."""
    monkeypatch.setattr(pooling, "LOOK", PATIENCE)
    first, _last = taken(pool), taken(pool)
    waiter = wait_for_one()
    pool._line.appendleft(ref(pooling._Turn()))
    pool.give(first)

    assert first is waiter.end()


def test_what_is_handed_to_one_who_helps_himself_is_given_back(
    pool: Pool[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loan that comes while somebody who waited has found another is lent to the next."""
    handed, free = taken(pool), taken(pool)

    def find(_: Pool[str]) -> Loan[str]:
        with pool._lock:
            turn = pool._line.popleft()()
            assert turn is not None
            turn.loan = handed
        return free

    monkeypatch.setattr(Pool, "_free", find)
    assert free is pool._wait(PATIENCE)

    assert handed is taken(pool)


def test_a_finalizer_may_take_and_give(pool: Pool[str], made: Made) -> None:
    """What comes into the midst of a take or a give on the same thread, and does the same, does not hang."""
    with pool._lock:
        use(pool)
        last = [taken(pool) for _ in range(LIMIT)]
        assert None is pool.take(PATIENCE), "nobody could give one back meanwhile"
    assert LIMIT == len(last) == made.count


def test_who_comes_in_between_takes_no_place_too_many() -> None:
    """At whatever step of a take another comes on the same thread: no more are lent than there may be."""
    for step in itertools.count():
        pool: Pool[str] = Pool(1, lambda: "made", lambda _: None)
        lent: list[Loan[str] | None] = []
        came: list[Loan[str] | None] = []
        with at_step(step, lambda p=pool, to=came: to.append(p.take(0.0)), pooling) as steps:
            lent.append(pool.take(0.0))
        if not came:
            break
        assert 1 == len([loan for loan in (*lent, *came) if loan is not None])
    assert 10 < steps.passed


def test_a_child_begins_with_none(made: Made) -> None:
    """It closes its copies of those that are idle and of those that are lent, and knows no lock of its parent's."""
    forsaken: list[str] = []
    pool: Pool[str] = Pool(LIMIT, made, forsaken.append)
    lent, idle = taken(pool), taken(pool)
    pool.give(idle)
    with pool._lock:
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                assert {"connection 1", "connection 2"} == {*forsaken}
                own = threading.Thread(target=lambda: taken(pool))
                own.start()
                own.join(SOON)
                assert not own.is_alive()
                assert "connection 4" == taken(pool).connection
                code = 0
            os._exit(code)
    assert 0 == os.waitpid(child, 0)[1]
    assert [] == forsaken
    assert lent.connection


def test_a_child_of_a_closed_pool_keeps_none(pool: Pool[str]) -> None:
    """What was closed stays closed on both sides of a fork."""
    pool.close()
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            code = int(pool.give(taken(pool)))
        os._exit(code)
    assert 0 == os.waitpid(child, 0)[1]
