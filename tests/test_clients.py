"""The verbs of a client: what is stored, with which options, and what is said when it fails."""

import math
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import goose
from goose.brokers.base import Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import (
    ArgumentError,
    BrokerError,
    BrokerUnavailable,
    CallError,
    ConfigError,
    EnqueueError,
    FunctionError,
    PayloadTooLarge,
    Unsupported,
)
from goose.jobs import Envelope, Job, decode
from goose.options import job
from goose.retries import Retry
from goose.settings import Settings


def send(to: str, *, subject: str = "") -> int: ...


async def fetch(url: str) -> bytes: ...


@job(queue="marked", retry=Retry(max_retries=2), timeout=30, group="g")
def marked(n: int) -> None: ...


class Flaky(MemoryBroker):
    """A memory broker that raises what it is told to, before or after it stored."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[BaseException | None] = []
        self.after: list[BaseException | None] = []
        self.calls: list[tuple[str, list[Envelope]]] = []

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        self._around("enqueue", super().enqueue, envelopes)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        self._around("schedule", super().schedule, envelopes)

    def _around(self, verb: str, store: Callable[..., None], envelopes: Sequence[Envelope]) -> None:
        self.calls.append((verb, list(envelopes)))
        if self.before and (error := self.before.pop(0)):
            raise error
        store(envelopes)
        if self.after and (error := self.after.pop(0)):
            raise error


class Transacting(MemoryBroker):
    """A memory broker that also stores "inside a transaction": into a list."""

    def enqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        if connection == "wrong":
            raise ConfigError("another database")
        if connection == "bare":
            raise BrokerError("no such table")
        connection.extend(envelopes)


@pytest.fixture
def broker() -> Flaky:
    return Flaky()


@pytest.fixture
def client(broker: Flaky) -> Client:
    return Client(broker, settings=Settings())


def stored(broker: MemoryBroker, state: State = State.READY) -> list[Job[Any]]:
    return [decode(item.envelope) for item in broker.page(state, limit=10_000).items]


# --- verbs -----------------------------------------------------------------------------------


def test_what_is_enqueued_is_what_is_stored(client: Client, broker: Flaky) -> None:
    """The job that comes back is the one a worker will read."""
    job = client.enqueue(send, "ada@x", subject="Hi")

    assert [job] == stored(broker)
    assert (f"{__name__}:send", ("ada@x",), {"subject": "Hi"}) == (job.fn, job.args, job.kwargs)
    assert "default" == job.queue
    assert abs(time.time() - job.enqueued_at) < 5


def test_async_functions_are_enqueued_alike(client: Client, broker: Flaky) -> None:
    """A coroutine function is named and stored, never called."""
    assert [client.enqueue(fetch, "http://x")] == stored(broker)


@pytest.mark.parametrize("delay", [300, 300.0, timedelta(minutes=5)])
def test_a_delay_travels_to_the_broker(client: Client, broker: Flaky, delay: Any) -> None:
    """Seconds and `timedelta` reach the broker as a delay, for it to add to its own clock."""
    job = client.enqueue_in(delay, send, "ada@x")

    assert [job] == stored(broker, State.SCHEDULED)
    ((verb, [envelope]),) = broker.calls
    assert ("schedule", 300.0, None) == (verb, envelope.delay, envelope.due_at)


def test_an_instant_travels_to_the_broker(client: Client, broker: Flaky) -> None:
    """An aware instant of any zone reaches the broker as epoch seconds."""
    instant = datetime.now(UTC) + timedelta(hours=1)
    client.enqueue_at(instant, send, "ada@x")

    ((verb, [envelope]),) = broker.calls
    assert ("schedule", None, instant.timestamp()) == (verb, envelope.delay, envelope.due_at)


def test_an_instant_that_has_passed_means_now(client: Client, broker: Flaky) -> None:
    """A past instant is no error: the job is ready."""
    job = client.enqueue_at(datetime(2020, 1, 1, tzinfo=UTC), send, "ada@x")

    assert [job] == stored(broker, State.READY)


@pytest.mark.parametrize(
    "delay",
    [
        -1,
        -0.001,
        math.nan,
        math.inf,
        timedelta(seconds=-1),
        timedelta(days=36_600),
        "5",
        None,
        True,
    ],
)
def test_a_delay_that_cannot_be_meant_is_refused(client: Client, broker: Flaky, delay: Any) -> None:
    """Negative, unending, overlong and untyped delays are errors before anything is sent."""
    with pytest.raises(CallError, match="delay = "):
        client.enqueue_in(delay, send, "ada@x")
    assert [] == broker.calls


@pytest.mark.parametrize(
    ("instant", "said"),
    [
        (datetime(2030, 1, 1), "has no time zone"),  # noqa: DTZ001 - what the test is about
        (datetime(2300, 1, 1, tzinfo=UTC), "over a hundred years ahead"),
        (1893456000, "is not a datetime; for seconds use enqueue_in"),
    ],
)
def test_an_instant_that_cannot_be_meant_is_refused(
    client: Client, broker: Flaky, instant: Any, said: str
) -> None:
    """Naive, far and untyped instants are errors before anything is sent."""
    with pytest.raises(CallError, match=said):
        client.enqueue_at(instant, send, "ada@x")
    assert [] == broker.calls


def test_a_wrong_call_is_a_type_error_at_the_call_site(client: Client, broker: Flaky) -> None:
    """A call that does not fit the function's signature is refused, as Python would."""
    wrong: Any = send
    with pytest.raises(TypeError):
        client.enqueue(wrong)
    with pytest.raises(ArgumentError):
        client.enqueue(wrong, "a", sbject="x")
    with pytest.raises(FunctionError):
        client.enqueue(lambda: None)
    with pytest.raises(FunctionError):
        client.enqueue([])  # type: ignore[call-overload]
    assert [] == broker.calls


def test_a_functions_own_keywords_stay_its_own(client: Client, broker: Flaky) -> None:
    """A function may have parameters named like Goose's own."""
    job = client.enqueue(greedy, fn="a", delay=1, queue="b", self="c")

    assert {"fn": "a", "delay": 1, "queue": "b", "self": "c"} == job.kwargs
    assert job == client.enqueue_in(0, greedy, fn="a", delay=1, queue="b", self="c").evolve(
        id=job.id, enqueued_at=job.enqueued_at
    )


def greedy(fn: str, delay: int, queue: str, self: str) -> None: ...


def test_a_job_over_the_limit_is_refused(broker: Flaky) -> None:
    """The size limit of the settings holds, before anything is sent."""
    with pytest.raises(PayloadTooLarge):
        Client(broker, settings=Settings(max_bytes=500)).enqueue(send, "x" * 500)
    assert [] == broker.calls


# --- many ------------------------------------------------------------------------------------


def test_many_are_stored_in_chunks(client: Client, broker: Flaky) -> None:
    """Bulk enqueue costs one call to the broker for each 500 jobs, in order."""
    jobs = client.enqueue_many(send, ((f"{n}@x",) for n in range(1_201)))

    assert [500, 500, 201] == [len(envelopes) for _, envelopes in broker.calls]
    assert jobs == stored(broker)
    assert [f"{n}@x" for n in range(1_201)] == [job.args[0] for job in jobs]


def test_items_may_be_calls(client: Client, broker: Flaky) -> None:
    """`goose.call` gives an item keyword arguments."""
    client.enqueue_many(send, [("a",), goose.call(send, "b", subject="Hi")])

    assert [{}, {"subject": "Hi"}] == [job.kwargs for job in stored(broker)]


@pytest.mark.parametrize("item", ["ada@x", ["ada@x"], 1, goose.call(marked, 1)])
def test_a_strange_item_is_named(client: Client, broker: Flaky, item: Any) -> None:
    """What is neither a tuple nor a call of the function is refused, and nothing is sent."""
    with pytest.raises(ArgumentError, match="is no item for enqueue_many"):
        client.enqueue_many(send, [("fine",), item])
    assert [] == broker.calls


def test_one_bad_item_stops_all_before_the_first_is_sent(client: Client, broker: Flaky) -> None:
    """All items are checked first, so a mistake in the last leaves nothing half done."""
    with pytest.raises(ArgumentError):
        client.enqueue_many(send, [*[("a",)] * 600, (1,)])
    assert [] == broker.calls


def test_no_items_are_no_jobs(client: Client, broker: Flaky) -> None:
    """An empty bulk costs no round trip."""
    assert [] == client.enqueue_many(send, [])
    assert [] == broker.calls


# --- options ---------------------------------------------------------------------------------


def test_options_of_the_function_are_frozen_into_the_job(client: Client) -> None:
    """What `@goose.job` says travels with the job."""
    job = client.enqueue(marked, 1)

    assert ("marked", {"max_retries": 2}, 30.0, "g") == (
        job.queue,
        job.retry,
        job.timeout,
        job.group,
    )


def test_each_option_comes_from_the_nearest_place(broker: Flaky) -> None:
    """Bound over decorator over client over settings, field by field."""
    settings = Settings(queue="s", retry=Retry(max_retries=9), timeout=9)
    client = Client(broker, queue="c", timeout=8, settings=settings)
    bound = client.using(queue="b")

    assert ("b", {"max_retries": 2}, 30.0) == picked(bound.enqueue(marked, 1))
    assert ("marked", {"max_retries": 2}, 30.0) == picked(client.enqueue(marked, 1))
    assert ("b", {"max_retries": 9}, 8.0) == picked(bound.enqueue(send, "x"))
    assert ("c", {"max_retries": 9}, 8.0) == picked(client.enqueue(send, "x"))
    plain = Client(broker, settings=settings)
    assert ("s", {"max_retries": 9}, 9.0) == picked(plain.enqueue(send, "x"))


def picked(job: Job[Any]) -> tuple[Any, ...]:
    return job.queue, job.retry, job.timeout


def test_using_changes_nothing_it_was_called_on(client: Client) -> None:
    """Bound options belong to the new client only, and add up."""
    mail = client.using(queue="mail")
    slow = mail.using(timeout=5)

    assert ("default", None, None) == picked(client.enqueue(send, "x"))
    assert ("mail", None, None) == picked(mail.enqueue(send, "x"))
    assert ("mail", None, 5.0) == picked(slow.enqueue(send, "x"))


def test_a_timeout_can_be_lifted(client: Client) -> None:
    """An infinite timeout is none, over what the function says."""
    assert None is client.using(timeout=math.inf).enqueue(marked, 1).timeout


def test_a_wrong_option_is_refused_where_it_is_written(client: Client) -> None:
    """`using` and `Client` check their values at once."""
    with pytest.raises(ConfigError, match="cannot name a queue"):
        client.using(queue="two words")
    with pytest.raises(ConfigError, match="timeout"):
        Client(timeout=-1)


def test_another_broker_can_be_named_for_a_call(client: Client, broker: Flaky) -> None:
    """`using(broker=…)` sends elsewhere, with everything else as it was."""
    other = MemoryBroker()

    job = client.using(queue="mail").using(broker=other).enqueue(send, "x")

    assert [job] == stored(other)
    assert "mail" == job.queue
    assert [] == broker.calls


def test_a_broker_url_is_connected_once(client: Client) -> None:
    """Naming the same URL for every call opens one connection, not one each."""
    first = client.using(broker="memory://once").broker

    assert first is client.using(broker="memory://once").using(queue="q").broker
    assert first is not client.using(broker="memory://twice").broker


def test_closing_closes_what_was_opened(client: Client, broker: Flaky) -> None:
    """`close` closes connections made from URLs and leaves given objects open."""
    opened = client.using(broker="memory://closing").broker
    client.enqueue(send, "x")
    client.close()

    with pytest.raises(BrokerError):
        opened.enqueue([])
    broker.enqueue([])
    client.enqueue(send, "again")


# --- the client behind the module's functions ---------------------------------------------------


@pytest.fixture
def configured() -> Any:
    broker = MemoryBroker()
    goose.configure(broker=broker)
    yield broker
    goose.configure()


def test_module_functions_follow_configure(configured: MemoryBroker) -> None:
    """The functions of `goose` use what is configured when they are called."""
    mail = goose.using(queue="mail")
    goose.enqueue(send, "x")
    goose.configure(broker=(other := MemoryBroker()), queue="later")
    goose.enqueue(send, "y")
    mail.enqueue(send, "z")

    assert ["default"] == [job.queue for job in stored(configured)]
    assert ["later", "mail"] == sorted(job.queue for job in stored(other))


def test_every_verb_of_the_module_works(configured: MemoryBroker) -> None:
    """`goose` has all verbs of a client."""
    goose.enqueue_in(60, send, "x")
    goose.enqueue_at(datetime.now(UTC) + timedelta(hours=1), send, "x")
    goose.enqueue_many(send, [("x",)])
    goose.submit([goose.enqueue(send, "x")])

    assert (2, 2) == (configured.count(State.SCHEDULED), configured.count(State.READY))


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(("fn", "args"), [(lambda: None, ()), (send, (object(),)), (send, ())])
def test_a_wrong_call_has_one_traceback(
    client: Client, fn: Callable[..., object], args: tuple[object, ...]
) -> None:
    """What Goose tried on the way is no part of what its caller reads."""
    with pytest.raises(CallError) as caught:
        client.enqueue(fn, *args)

    assert 1 == "".join(traceback.format_exception(caught.value)).count("Traceback")


def test_a_refusal_means_not_stored(client: Client, broker: Flaky) -> None:
    """When the broker refuses, the error says so for each job, and sending again works."""
    broker.before = [BrokerError("read only")]

    with pytest.raises(EnqueueError, match=r"1 not stored.*read only.*submit") as caught:
        client.enqueue(send, "x")

    assert ["not_stored"] == list(caught.value.jobs.values())
    assert isinstance(caught.value.__cause__, BrokerError)
    jobs = client.submit(caught.value.jobs)
    assert list(caught.value.jobs) == jobs == stored(broker)


def test_what_was_never_sent_is_not_stored(client: Client, broker: Flaky) -> None:
    """A broker that was not even reached has stored nothing."""
    unreached = BrokerUnavailable("is it running?")
    unreached.unsent = True
    broker.before = [unreached]

    with pytest.raises(
        EnqueueError, match=r"1 not stored.*running\? To send again: goose"
    ) as caught:
        client.enqueue(send, "x")

    assert ["not_stored"] == list(caught.value.jobs.values())


@pytest.mark.parametrize("error", [BrokerUnavailable("gone"), ZeroDivisionError("odd")])
def test_a_lost_reply_means_unknown(client: Client, broker: Flaky, error: Exception) -> None:
    """When the job may be stored the error says unknown, and sending again makes no second one."""
    broker.after = [error]

    with pytest.raises(EnqueueError) as caught:
        client.enqueue(send, "x")

    assert ["unknown"] == list(caught.value.jobs.values())
    client.submit(caught.value.jobs)
    assert list(caught.value.jobs) == stored(broker)


def test_a_bulk_that_fails_half_way_says_how_far_it_came(client: Client, broker: Flaky) -> None:
    """Chunks before the failure are stored, it is unknown, those after it are not stored."""
    broker.after = [None, BrokerUnavailable("gone")]

    with pytest.raises(EnqueueError) as caught:
        client.enqueue_many(send, [(str(n),) for n in range(1_300)])

    states = list(caught.value.jobs.values())
    assert ["stored"] * 500 + ["unknown"] * 500 + ["not_stored"] * 300 == states
    assert 800 == len(client.submit(caught.value.jobs))
    assert {str(n) for n in range(1_300)} == {job.args[0] for job in stored(broker)}
    assert 1_300 == broker.count(State.READY)


def test_sending_again_keeps_when_a_job_was_to_be_due(client: Client, broker: Flaky) -> None:
    """A delay becomes the same delay and an instant the same instant, however often it fails."""
    instant = datetime.now(UTC) + timedelta(days=2)
    gone = BrokerUnavailable("gone")
    broker.before = [gone] * 4
    failures: list[Job[Any]] = []
    for enqueue in (
        lambda: client.enqueue_in(60, send, "in"),
        lambda: client.enqueue_at(instant, send, "at"),
        lambda: client.enqueue(send, "now"),
    ):
        with pytest.raises(EnqueueError) as caught:
            enqueue()
        failures += caught.value.jobs
    with pytest.raises(EnqueueError) as caught:
        client.submit(failures)
    assert failures[2:] + failures[:2] == list(caught.value.jobs)
    broker.calls.clear()

    client.submit(caught.value.jobs)

    due = {e.id: (verb, e.delay, e.due_at) for verb, envelopes in broker.calls for e in envelopes}
    assert [
        ("schedule", 60.0, None),
        ("schedule", None, instant.timestamp()),
        ("enqueue", None, None),
    ] == [due[job.id] for job in failures]


def test_an_enqueue_error_can_be_pickled(client: Client, broker: Flaky) -> None:
    """The error, with its jobs and when they are due, survives a trip between processes."""
    broker.before = [BrokerError("no")]
    with pytest.raises(EnqueueError) as caught:
        client.enqueue_in(60, send, "x")

    copy = pickle.loads(pickle.dumps(caught.value))

    assert caught.value.jobs == copy.jobs
    assert 60.0 == next(iter(copy.jobs)).delay


def test_only_jobs_can_be_submitted(client: Client) -> None:
    """A function or call is enqueued, not submitted."""
    with pytest.raises(CallError, match="submit takes jobs, not"):
        client.submit([goose.call(send, "x")])  # type: ignore[list-item]
    with pytest.raises(CallError, match="is not JSON"):
        client.submit([Job("id", "m:f", args=(math.nan,))])
    with pytest.raises(ConfigError, match="cannot name a queue"):
        client.submit([Job("id", "m:f", queue="two words")])


# --- transactions ----------------------------------------------------------------------------


def test_jobs_can_go_into_the_callers_transaction() -> None:
    """With a connection jobs are stored through it, ready and later ones alike."""
    broker = Transacting()
    connection: list[Envelope] = []
    client = Client(broker, settings=Settings()).using(connection=connection)

    jobs = [client.enqueue(send, "x"), client.enqueue_in(60, send, "y")]

    assert [(jobs[0].id, None), (jobs[1].id, 60.0)] == [(e.id, e.delay) for e in connection]
    assert 0 == broker.count(State.READY)


def test_a_broker_without_transactions_says_so(client: Client) -> None:
    """Asking for a transaction the broker cannot join is refused at once, with a way out."""
    with pytest.raises(
        Unsupported, match=r"Flaky cannot store jobs inside a transaction .* or an outbox there"
    ):
        client.using(connection=object())


def test_a_wrong_connection_is_the_callers_mistake() -> None:
    """A connection to another database is a configuration error; missing tables are a refusal."""
    client = Client(Transacting(), settings=Settings())

    with pytest.raises(ConfigError, match="another database"):
        client.using(connection="wrong").enqueue(send, "x")
    with pytest.raises(EnqueueError, match="no such table") as caught:
        client.using(connection="bare").enqueue(send, "x")
    assert ["not_stored"] == list(caught.value.jobs.values())


# --- threads and processes -------------------------------------------------------------------


def test_many_threads_may_use_one_client(client: Client, broker: Flaky) -> None:
    """Concurrent callers each get their own job, stored once."""
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda n: client.enqueue(send, str(n)), range(500)))

    assert {job.id for job in jobs} == {job.id for job in stored(broker)}
    assert 500 == broker.count(State.READY)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_client_works_on_both_sides_of_a_fork() -> None:
    """Parent and child both enqueue after a fork, through a client used before it."""
    client = Client("sqlite:///forked.db", settings=Settings())
    client.enqueue(send, "before")

    child = os.fork()
    if child == 0:
        signal.alarm(20)  # whatever it waits for, it does not wait for ever
        status = 1
        try:
            client.enqueue(send, "child")
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    client.enqueue(send, "parent")

    assert 0 == os.waitstatus_to_exitcode(status)
    found = {stored.job.args[0] for stored in client.inspector.find() if stored.job}
    client.close()
    assert {"before", "child", "parent"} == found


def test_a_worker_can_take_what_was_enqueued(client: Client, broker: Flaky) -> None:
    """The envelope's own queue is the job's."""
    broker.open(session := Session("s"), ttl=30)
    job = client.using(queue="mail").enqueue(send, "x")

    (delivery,) = broker.dequeue(session, [Share("mail")], limit=1, wait=0)

    assert job == decode(delivery.envelope)
