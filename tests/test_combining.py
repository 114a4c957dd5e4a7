"""Sharing round trips: who sends what, and who hears of which error."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from goose.combining import BATCH, Combiner
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope


def envelope(name: str) -> Envelope:
    return Envelope(name, "default", b"{}")


class Wire:
    """Stands for a broker: remembers each call, and can hold one until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.gate: threading.Event | None = None
        self.answer: Callable[[list[str]], BaseException | None] = lambda ids: None

    def hold(self) -> threading.Event:
        self.gate = threading.Event()
        return self.gate

    def send(self, envelopes: Sequence[Envelope]) -> None:
        ids = [each.id for each in envelopes]
        self.calls.append(ids)
        gate, self.gate = self.gate, None
        self.entered.release()
        if gate is not None:
            assert gate.wait(20)
        error = self.answer(ids)
        if error is not None:
            raise error


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    with ThreadPoolExecutor(20) as pool:
        yield pool


def waiting(combiner: Combiner, count: int) -> Callable[[], bool]:
    return lambda: combiner._waiting == count


def behind_a_held_call(
    combiner: Combiner,
    wire: Wire,
    pool: ThreadPoolExecutor,
    wait_until: Callable[..., None],
    names: Sequence[str],
) -> tuple[threading.Event, Future[None], list[Future[None]]]:
    """Hold the call of "first", and let *names* arrive behind it, in order."""
    gate = wire.hold()
    first = pool.submit(combiner.send, [envelope("first")])
    assert wire.entered.acquire(timeout=20)
    others = []
    for place, name in enumerate(names, 1):
        others.append(pool.submit(combiner.send, [envelope(name)]))
        wait_until(waiting(combiner, place))
    return gate, first, others


def test_a_lone_caller_sends_at_once(wire: Wire) -> None:
    """With nobody else there, a call goes out as it came, on the caller's own thread."""
    Combiner(wire.send).send([envelope("a"), envelope("b")])

    assert [["a", "b"]] == wire.calls


def test_those_who_arrive_meanwhile_are_sent_together(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """While one call is under way others line up, and the next call takes them all."""
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "b", "c"])

    gate.set()
    for future in [first, *others]:
        future.result(20)

    assert [["first"], ["a", "b", "c"]] == wire.calls


def test_a_batch_is_bounded_and_parcels_stay_whole(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """A call takes whole parcels up to the bound; what does not fit goes with the next."""
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a"])
    others.append(pool.submit(combiner.send, [envelope(str(i)) for i in range(BATCH)]))
    wait_until(waiting(combiner, BATCH + 1))
    others.append(pool.submit(combiner.send, [envelope("z")]))
    wait_until(waiting(combiner, BATCH + 2))

    gate.set()
    for future in [first, *others]:
        future.result(20)

    assert [1, 1, BATCH, 1] == [len(call) for call in wire.calls]


def test_a_refused_envelope_fails_only_its_caller(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """When a shared call is refused each caller's part is sent alone."""
    wire.answer = lambda ids: BrokerError("too big") if "bad" in ids else None
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "bad", "b"])

    gate.set()

    assert [None, None] == [others[0].result(20), others[2].result(20)]
    with pytest.raises(BrokerError, match="too big"):
        others[1].result(20)
    first.result(20)
    assert [["first"], ["a", "bad", "b"], ["a"], ["bad"], ["b"]] == wire.calls


def test_an_unreachable_broker_is_unknown_for_all(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """When a shared call's outcome is unknown it is not repeated, and all callers hear so."""
    wire.answer = lambda ids: None if "first" in ids else BrokerUnavailable("gone")
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "b"])

    gate.set()

    first.result(20)
    for future in others:
        with pytest.raises(BrokerUnavailable):
            future.result(20)
    assert [["first"], ["a", "b"]] == wire.calls


def test_a_broker_lost_between_parts_leaves_the_rest_refused(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """Parts not yet sent again when the broker goes are known not to be stored."""

    def answer(ids: list[str]) -> BaseException | None:
        if len(ids) > 1:
            return BrokerError("refused")
        return BrokerUnavailable("gone") if ids == ["b"] else None

    wire.answer = answer
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "b", "c"])

    gate.set()

    assert (None, None) == (first.result(20), others[0].result(20))
    assert isinstance(others[1].exception(20), BrokerUnavailable)
    assert "refused" == str(others[2].exception(20))
    assert ["c"] not in wire.calls


def test_a_strange_error_stops_nobody(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """An error that no broker should raise reaches those it concerns, and the line goes on."""
    wire.answer = lambda ids: ZeroDivisionError() if "a" in ids else None
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a"])

    gate.set()

    first.result(20)
    with pytest.raises(ZeroDivisionError):
        others[0].result(20)
    combiner.send([envelope("after")])
    assert ["after"] == wire.calls[-1]


def test_an_interrupted_sender_hands_on(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """Those whose parcels went with an interrupted thread hear that the outcome is unknown."""
    wire.answer = lambda ids: KeyboardInterrupt() if "a" in ids else None
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "b"])

    gate.set()

    first.result(20)
    assert isinstance(others[0].exception(20), KeyboardInterrupt)
    assert isinstance(others[1].exception(20), BrokerUnavailable)
    combiner.send([envelope("after")])


class Strikes:
    """A lock whose holder is interrupted in the moment that it lets go."""

    def __init__(self) -> None:
        self.armed = True
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        armed, self.armed = self.armed, False
        if armed:
            raise KeyboardInterrupt


@pytest.mark.parametrize("busy", [False, True])
def test_an_interrupt_between_joining_and_sending_stops_nobody(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None], busy: bool
) -> None:
    """A caller interrupted right after it became the leader, or joined the line, blocks nobody."""
    combiner = Combiner(wire.send)
    if busy:
        gate, first, _ = behind_a_held_call(combiner, wire, pool, wait_until, [])
    combiner._lock = Strikes()  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt):
        combiner.send([envelope("gone")])
    if busy:
        gate.set()
        first.result(20)

    pool.submit(combiner.send, [envelope("after")]).result(20)
    assert ["after"] == wire.calls[-1]
    assert ["gone"] not in wire.calls


class Interrupted:
    """A parcel's gate whose waiter is interrupted, before or after it was let through."""

    def __init__(self, gate: threading.Lock, *, let_through: bool) -> None:
        self.gate = gate
        self.let_through = let_through

    def acquire(self) -> None:
        if self.let_through:
            assert self.gate.acquire(timeout=20)
        raise KeyboardInterrupt

    def release(self) -> None:
        self.gate.release()


@pytest.mark.parametrize("let_through", [False, True])
def test_an_interrupted_waiter_leaves_the_line(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None], let_through: bool
) -> None:
    """A caller interrupted in the line takes its parcel back, and passes on a lead it was given."""
    combiner = Combiner(wire.send)
    gate, first, _ = behind_a_held_call(combiner, wire, pool, wait_until, [])
    original = combiner._join

    def join(envelopes: Sequence[Envelope], notify: None) -> object:
        parcel = original(envelopes, notify)
        parcel.gate = Interrupted(parcel.gate, let_through=let_through)  # type: ignore[assignment]
        return parcel

    combiner._join = join  # type: ignore[assignment,method-assign]
    gone = pool.submit(combiner.send, [envelope("gone")])
    if let_through:
        wait_until(waiting(combiner, 1))
    else:
        assert isinstance(gone.exception(20), KeyboardInterrupt)
    combiner._join = original  # type: ignore[method-assign]
    last = pool.submit(combiner.send, [envelope("last")])
    wait_until(waiting(combiner, 2 if let_through else 1))

    gate.set()
    first.result(20)
    last.result(20)

    assert isinstance(gone.exception(20), KeyboardInterrupt)
    assert [["first"], ["last"]] == wire.calls


def test_the_line_is_bounded(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """More than the line may hold is refused at once, and known not to be stored."""
    combiner = Combiner(wire.send, limit=2)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a", "b"])

    with pytest.raises(BrokerError, match="2 jobs wait for the broker already") as caught:
        combiner.send([envelope("c")])
    assert not isinstance(caught.value, BrokerUnavailable)
    told: list[BaseException | None] = []
    combiner.post([([envelope("d")], told.append)])
    assert ["BrokerError"] == [type(error).__name__ for error in told]

    gate.set()
    for future in [first, *others]:
        future.result(20)
    combiner.send([envelope("e")])


def test_posted_parcels_share_one_thread(wire: Wire, wait_until: Callable[..., None]) -> None:
    """Callers without a thread of their own are served by a single one, together."""
    combiner = Combiner(wire.send)
    gate = wire.hold()
    told: list[tuple[str, BaseException | None]] = []
    threads = set()

    def post(name: str) -> None:
        def notify(error: BaseException | None) -> None:
            threads.add(threading.current_thread())
            told.append((name, error))

        combiner.post([([envelope(name)], notify)])

    post("a")
    assert wire.entered.acquire(timeout=20)
    for number in range(100):
        post(str(number))
    gate.set()
    wait_until(lambda: len(told) == 101)
    combiner.close()

    assert [1, 100] == [len(call) for call in wire.calls]
    assert {None} == {error for _, error in told}
    assert 1 == len(threads)


def test_threads_and_posted_parcels_share_calls(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """Both kinds of callers stand in the same line, whoever leads."""
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a"])
    told: list[BaseException | None] = []
    combiner.post([([envelope("b")], told.append)])
    wait_until(waiting(combiner, 2))

    gate.set()
    for future in [first, *others]:
        future.result(20)
    wait_until(lambda: told == [None])

    assert [["first"], ["a", "b"]] == wire.calls


def test_nothing_is_lost_under_many_threads(wire: Wire, pool: ThreadPoolExecutor) -> None:
    """Every envelope of many concurrent callers is sent exactly once."""
    combiner = Combiner(wire.send)

    def work(worker: int) -> None:
        for number in range(200):
            combiner.send([envelope(f"{worker}/{number}")])

    for future in [pool.submit(work, worker) for worker in range(8)]:
        future.result(30)

    sent = [name for call in wire.calls for name in call]
    assert 1600 == len(sent) == len(set(sent))
    assert not combiner._busy


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_starts_with_an_empty_line(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """A child forked while its parent sends neither waits for that nor sends it again."""
    combiner = Combiner(wire.send)
    gate, first, others = behind_a_held_call(combiner, wire, pool, wait_until, ["a"])

    child = os.fork()
    if child == 0:
        signal.alarm(20)  # whatever it waits for, it does not wait for ever
        status = 1
        try:
            wire.calls.clear()
            combiner.send([envelope("child")])
            status = 0 if wire.calls == [["child"]] else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    gate.set()
    for future in [first, *others]:
        future.result(20)

    assert 0 == os.waitstatus_to_exitcode(status)
    assert [["first"], ["a"]] == wire.calls


def test_where_the_broker_wants_several_calls_nobody_waits(
    wire: Wire, pool: ThreadPoolExecutor, wait_until: Callable[..., None]
) -> None:
    """As many callers as are allowed send at once; further ones join the line of the leader."""
    combiner = Combiner(wire.send, calls=3)
    gates = []
    sent = []
    for name in ("leader", "second", "third"):
        gates.append(wire.hold())
        sent.append(pool.submit(combiner.send, [envelope(name)]))
        assert wire.entered.acquire(timeout=20)
    sent += [pool.submit(combiner.send, [envelope(name)]) for name in ("fourth", "fifth")]
    wait_until(waiting(combiner, 2))
    gates[1].set()
    sent[1].result(20)

    assert [["leader"], ["second"], ["third"]] == wire.calls
    for gate in gates:
        gate.set()
    for future in sent:
        future.result(20)
    assert ["fifth", "fourth"] == sorted(id_ for call in wire.calls[3:] for id_ in call)
