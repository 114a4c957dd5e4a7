"""The same verbs in asyncio code."""

import asyncio
import gc
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import goose
from goose import aio, aio_sending
from goose.brokers.base import Notify, State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.combining import Combiner
from goose.errors import BrokerError, BrokerUnavailable, CallError, EnqueueError
from goose.jobs import Envelope
from goose.settings import Settings
from tests.stopping import at_step, stop


def send(to: str, *, subject: str = "") -> int: ...


async def fetch(url: str) -> bytes: ...


class Held(MemoryBroker):
    """A memory broker whose `enqueue` waits until it is let go, and may then fail."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.error: Exception | None = None

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        self.sizes.append(len(envelopes))
        self.threads.add(threading.current_thread())
        self.entered.set()
        assert self.go.wait(20)
        if self.error:
            raise self.error
        super().enqueue(envelopes)


@pytest.fixture
def broker() -> Held:
    return Held()


@pytest.fixture
def client(broker: Held) -> aio.Client:
    return aio.Client(broker, settings=Settings())


@pytest.fixture
def configured() -> Iterator[MemoryBroker]:
    broker = MemoryBroker()
    goose.configure(broker=broker)
    yield broker
    goose.configure()


def test_every_verb_can_be_awaited(configured: MemoryBroker) -> None:
    """`goose.aio` has all verbs of a client, and they do the same."""

    async def main() -> None:
        await goose.aio.enqueue(send, "x", subject="s")
        await goose.aio.enqueue(fetch, "x")
        await goose.aio.enqueue_in(timedelta(minutes=1), send, "x")
        await goose.aio.enqueue_at(datetime.now(UTC) + timedelta(hours=1), send, "x")
        await goose.aio.enqueue_many(send, [("x",), goose.call(send, "x", subject="s")])
        await goose.aio.using(queue="mail").enqueue(send, "x")
        await goose.aio.submit([await goose.aio.enqueue(send, "again")])

    asyncio.run(main())

    assert (6, 2) == (configured.count(State.READY), configured.count(State.SCHEDULED))
    assert 1 == configured.count(State.READY, "mail")


def test_the_loop_goes_on_while_the_broker_works(client: aio.Client, broker: Held) -> None:
    """A slow broker blocks no other task."""

    async def main() -> str:
        slow = asyncio.create_task(client.enqueue(send, "x"))
        assert await asyncio.to_thread(broker.entered.wait, 20)
        broker.go.set()  # reached only if the loop was not blocked
        return (await slow).id

    assert broker.find(asyncio.run(main()))


def test_many_tasks_share_calls_and_one_thread(client: aio.Client, broker: Held) -> None:
    """A hundred tasks cost a few calls to the broker and no thread each."""

    async def main() -> None:
        tasks = [asyncio.create_task(client.enqueue(send, str(n))) for n in range(101)]
        assert await asyncio.to_thread(broker.entered.wait, 20)
        for _ in range(3):
            await asyncio.sleep(0)
        broker.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())

    assert 101 == sum(broker.sizes) == broker.count(State.READY)
    assert len(broker.sizes) <= 3
    assert 1 == len(broker.threads)


def test_a_cancelled_await_breaks_nothing(client: aio.Client, broker: Held) -> None:
    """The job of a cancelled task may be stored all the same, and other tasks go on."""

    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
        cancelled = asyncio.create_task(client.enqueue(send, "cancelled"))
        assert await asyncio.to_thread(broker.entered.wait, 20)
        waiting = asyncio.create_task(client.enqueue(send, "waiting"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        broker.go.set()
        await waiting
        await client.enqueue(send, "after")

    asyncio.run(main())

    assert [] == complaints
    assert 3 == broker.count(State.READY)


def test_an_ended_loop_breaks_nothing(client: aio.Client, broker: Held) -> None:
    """A loop that ends while a job is on its way takes nobody else down."""

    async def abandon() -> None:
        task = asyncio.create_task(client.enqueue(send, "abandoned"))
        assert await asyncio.to_thread(broker.entered.wait, 20)
        task.cancel()

    asyncio.run(abandon())
    broker.go.set()
    asyncio.run(client.enqueue(send, "after"))

    assert 2 == broker.count(State.READY)


class Posted(MemoryBroker):
    """A memory broker that takes what nobody waits for, unless it is busy, and tells of it when it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[int] = []
        self.untold: list[Notify] = []
        self.busy = False
        self.tells = False
        """Whether it is not asked to tell, but does so at once."""

    def post(self, calls: Sequence[tuple[Sequence[Envelope], Notify]]) -> bool:
        if self.busy:
            return False
        self.turns.append(len(calls))
        for envelopes, notify in calls:
            self.enqueue(envelopes)
            self.untold.append(notify)
        if self.tells:
            self.tell()
        return True

    def tell(self, error: BaseException | None = None) -> None:
        told, self.untold = self.untold, []
        for notify in told:
            notify(error)


async def turns(count: int = 3) -> None:
    """Let the loop go on for some turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_tasks_of_one_turn_are_posted_together() -> None:
    """A broker that can do without a waiting thread is handed all jobs of a turn of the loop in a few shares."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())
    threads = threading.active_count()

    async def main() -> None:
        tasks = [asyncio.create_task(client.enqueue(send, str(n))) for n in range(50)]
        await turns()
        assert [8, 16, 26] == broker.turns
        assert not any(task.done() for task in tasks)
        await asyncio.to_thread(broker.tell)
        await asyncio.gather(*tasks)
        assert threads >= threading.active_count() - 1, "a thread was made besides that of the test"

    asyncio.run(main())

    assert 50 == broker.count(State.READY)


def test_a_share_goes_before_the_turn_ends() -> None:
    """The broker has the first jobs of a turn while later ones are still sealed; each turn begins anew."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())
    seen: list[int] = []

    async def one(place: int) -> None:
        seen.append(broker.count(State.READY))
        await client.enqueue(send, str(place))

    async def main() -> None:
        for _ in range(2):
            tasks = [asyncio.create_task(one(n)) for n in range(9)]
            await turns()
            broker.tell()
            await asyncio.gather(*tasks)

    asyncio.run(main())

    assert [0] * 8 + [8] + [9] * 8 + [17] == seen


@pytest.mark.parametrize("count", [8, 7], ids=["in a task", "at the end of the turn"])
def test_who_is_stopped_as_he_hands_over_leaves_nobody_waiting(count: int) -> None:
    """An interrupt at any step of it reaches one task at most; the others are told, or their jobs are stored."""
    stopped = 0
    while asyncio.run(_interrupted_at(stopped, count)):
        stopped += 1
    assert 5 < stopped


async def _interrupted_at(step: int, count: int) -> bool:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    brokers = Posted(), Posted()
    for broker in brokers:
        broker.tells = True
    clients = [aio.Client(broker, settings=Settings()) for broker in brokers]
    calls = [clients[0].enqueue(send, str(n)) for n in range(count)]
    tasks = [asyncio.create_task(call) for call in (*calls, clients[1].enqueue(send, "other"))]
    with at_step(step, stop, aio_sending._Tasks._hand_over.__code__) as steps:
        await turns()
    errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    strange = [each for each in errors if isinstance(each, BaseException)]
    told = [error for error in strange if isinstance(error, EnqueueError)]
    assert all("was stopped: Stopped()" in str(error) for error in told)
    assert len(strange) - len(told) <= 1
    return steps.passed > step


def test_shares_are_counted_by_broker() -> None:
    """Tasks of one turn that enqueue to two brokers make up no share together."""
    brokers = Posted(), Posted()
    clients = [aio.Client(broker, settings=Settings()) for broker in brokers]

    async def main() -> None:
        tasks = [asyncio.create_task(clients[n % 2].enqueue(send, str(n))) for n in range(14)]
        await turns()
        for broker in brokers:
            broker.tell()
        await asyncio.gather(*tasks)

    asyncio.run(main())

    assert ([7], [7]) == (brokers[0].turns, brokers[1].turns)


def test_a_broker_with_a_line_is_handed_all_at_once(
    client: aio.Client, broker: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs a change of threads is done once for a turn of the loop."""
    broker.go.set()
    shares: list[int] = []
    real = Combiner.post

    def post(door: Combiner, parcels: Sequence[tuple[Sequence[Envelope], Notify]]) -> None:
        shares.append(len(parcels))
        real(door, parcels)

    monkeypatch.setattr(Combiner, "post", post)

    async def main() -> None:
        await asyncio.gather(*(client.enqueue(send, str(n)) for n in range(100)))

    asyncio.run(main())

    assert [100] == shares
    assert 100 == sum(broker.sizes)


def test_those_told_at_once_wake_their_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty answers from another thread cost one call into the loop, until it has seen to them."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())

    async def main() -> int:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(client.enqueue(send, str(n))) for n in range(50)]
        await turns()
        woken = 0
        real = loop.call_soon_threadsafe

        def count(*args: Any, **more: Any) -> Any:
            nonlocal woken
            woken += 1
            return real(*args, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        broker.tell()
        await asyncio.gather(*tasks)
        task = asyncio.create_task(client.enqueue(send, "later"))
        await turns()
        broker.tell()
        await task
        return woken

    assert 2 == asyncio.run(main())


def test_a_task_that_is_cancelled_before_the_turn_ends_sends_nothing() -> None:
    """What nobody wants any more when it would be handed over is not."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())

    async def main() -> None:
        task = asyncio.create_task(client.enqueue(send, "cancelled"))
        asyncio.get_running_loop().call_soon(task.cancel)
        kept = asyncio.create_task(client.enqueue(send, "kept"))
        await turns()
        broker.tell()
        await kept
        assert task.cancelled()

    asyncio.run(main())

    assert 1 == broker.count(State.READY)


def test_what_a_broker_cannot_post_waits_in_line() -> None:
    """A broker that would have to wait is called on a thread, as one that cannot post at all."""
    broker = Posted()
    broker.busy = True

    asyncio.run(aio.Client(broker, settings=Settings()).enqueue(send, "x"))

    assert ([], 1) == (broker.turns, broker.count(State.READY))


def test_an_error_of_what_was_posted_is_sorted_out() -> None:
    """A refusal says that nothing was stored, a lost broker that it is unknown."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())

    async def main(error: BaseException) -> list[str]:
        task = asyncio.create_task(client.enqueue(send, "x"))
        await turns()
        broker.tell(error)
        with pytest.raises(EnqueueError) as caught:
            await task
        return list(caught.value.jobs.values())

    assert ["not_stored"] == asyncio.run(main(BrokerError("full")))
    assert ["unknown"] == asyncio.run(main(BrokerUnavailable("gone")))


def test_loops_are_not_kept() -> None:
    """Nothing is left of loops that have ended and were used to enqueue, some of them too early."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    def leave(told: str) -> None:
        loop = asyncio.new_event_loop()
        loops.append(weakref.ref(loop))
        task = loop.create_task(client.enqueue(send, "x"))
        loop.run_until_complete(turns())
        if told != "after the end":
            broker.tell()
        if told == "in time":
            loop.run_until_complete(task)
        loop.close()
        broker.tell()

    for told in ("in time", "just before the end", "after the end", "in time"):
        leave(told)
    gc.collect()

    assert [None] * 4 == [loop() for loop in loops]


def test_a_broker_that_raises_is_heard_by_its_own_tasks_only() -> None:
    """A defect of one broker's `post` reaches those who enqueue there, and nobody waits for ever."""

    class Broken(Posted):
        def post(self, calls: Sequence[tuple[Sequence[Envelope], Notify]]) -> bool:
            raise RuntimeError("a defect")

    healthy = Posted()
    broken, fine = (aio.Client(b, settings=Settings()) for b in (Broken(), healthy))

    async def main() -> list[Any]:
        calls = [client.enqueue(send, "x") for client in (broken, fine, broken)]
        waiting = asyncio.gather(*calls, return_exceptions=True)
        await turns()
        healthy.tell()
        return await asyncio.wait_for(waiting, 20)

    first, job, second = asyncio.run(main())

    assert ["EnqueueError"] * 2 == [type(each).__name__ for each in (first, second)]
    assert healthy.find(job.id)


def test_who_is_stopped_as_he_wakes_a_loop_does_not_silence_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A timeout that is raised in the thread that tells leaves the loop to be woken by the next."""
    broker = Posted()
    client = aio.Client(broker, settings=Settings())

    async def main() -> None:
        tasks = [asyncio.create_task(client.enqueue(send, str(n))) for n in range(2)]
        await turns()

        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        first, second = broker.untold
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", stopped)
            first(None)
        second(None)
        await asyncio.wait_for(asyncio.gather(*tasks), 20)

    asyncio.run(main())


def test_a_failure_reaches_the_task_it_concerns(client: aio.Client, broker: Held) -> None:
    """The error says what is known of the job, and its jobs can be sent again."""
    broker.go.set()
    broker.error = BrokerUnavailable("gone")

    async def main() -> None:
        with pytest.raises(EnqueueError) as caught:
            await client.enqueue(send, "x")
        assert ["unknown"] == list(caught.value.jobs.values())
        broker.error = None
        await client.submit(caught.value.jobs)

    asyncio.run(main())

    assert 1 == broker.count(State.READY)


def test_a_wrong_call_is_refused_before_anything_is_sent(client: aio.Client, broker: Held) -> None:
    """Checks are the same as without asyncio."""

    async def main() -> None:
        with pytest.raises(CallError):
            await client.enqueue_in(-1, send, "x")
        with pytest.raises(TypeError):
            await client.enqueue(send, 1)  # type: ignore[call-overload]

    asyncio.run(main())

    assert [] == broker.sizes


def test_both_kinds_share_connections(broker: Held) -> None:
    """`client.aio` is the same client with verbs to await."""
    broker.go.set()
    client = Client(broker, queue="q", settings=Settings())

    job = asyncio.run(client.aio.enqueue(send, "x"))

    assert "q" == job.queue
    assert 1 == broker.count(State.READY, "q")


def test_a_client_is_closed_at_the_end_of_its_block() -> None:
    """`async with` closes the connections the client opened."""

    async def main() -> None:
        async with aio.Client("sqlite:///closed.db", settings=Settings()) as client:
            await client.enqueue(send, "x")

    asyncio.run(main())

    with Client("sqlite:///closed.db", settings=Settings()) as client:
        assert 1 == client.inspector.count(State.READY)


def test_a_transaction_stays_on_its_thread() -> None:
    """With a connection the job is stored by the loop's thread, inside its transaction."""
    client = Client("sqlite:///own.db", settings=Settings())
    client.enqueue(send, "creates the tables")

    async def main() -> None:
        connection = sqlite3.connect("own.db")
        with connection:
            await client.aio.using(connection=connection).enqueue(send, "kept")
        connection.execute("BEGIN")
        await client.aio.using(connection=connection).enqueue(send, "dropped")
        connection.rollback()
        connection.close()

    asyncio.run(main())

    found = {stored.job.args[0] for stored in client.inspector.find() if stored.job}
    client.close()
    assert {"creates the tables", "kept"} == found
