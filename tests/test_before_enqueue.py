"""What happens to a job on its way out: changes, refusals, and numbers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable, CallError, ConfigError, EnqueueError
from goose.jobs import decode
from goose.metrics.base import ENQUEUE_FAILED, ENQUEUE_TIME, ENQUEUED, Tags


def greet(name: str) -> None: ...


def mark(job: goose.Job[Any]) -> goose.Job[Any]:
    return job.evolve(meta={**job.meta, "marks": [*job.meta.get("marks", []), job.queue]})  # type: ignore[misc]


def reroute(job: goose.Job[Any]) -> goose.Job[Any]:
    return job.evolve(queue="other")


def refuse(job: goose.Job[Any]) -> goose.Job[Any]:
    if job.args == ("nobody",):
        raise PermissionError("nobody is greeted")
    return job


class Numbers:
    """Writes down what it is told."""

    never_blocks = True

    def __init__(self) -> None:
        self.said: list[tuple[str, float, dict[str, str]]] = []
        self.closed = 0

    def increment(self, name: str, value: float, tags: Tags) -> None:
        self.said.append((name, value, dict(tags)))

    gauge = timing = increment

    def close(self) -> None:
        self.closed += 1

    def of(self, name: str) -> list[tuple[float, dict[str, str]]]:
        return [(value, tags) for said, value, tags in self.said if said == name]


class Gone(MemoryBroker):
    def enqueue(self, envelopes: Any) -> None:
        raise BrokerUnavailable("gone")


@pytest.fixture
def configured() -> Iterator[None]:
    yield
    goose.configure()


def stored(client: goose.Client, job: goose.Job[Any]) -> goose.Job[Any]:
    found = client.broker.find(job.id)  # type: ignore[attr-defined]
    assert found is not None
    return decode(found.envelope)


def test_a_chain_changes_jobs_in_its_order() -> None:
    """Each verb passes through it; what is returned is what is stored."""
    client = goose.Client(MemoryBroker(), before_enqueue=[mark, reroute, mark])
    asynchronous = asyncio.run(client.aio.enqueue(greet, "ada"))
    many = client.enqueue_many(greet, [("a",), ("b",)])
    for job in [
        client.enqueue(greet, "ada"),
        client.enqueue_in(60, greet, "x"),
        asynchronous,
        *many,
    ]:
        assert ("other", {"marks": ["default", "other"]}) == (job.queue, job.meta)
        assert stored(client, job).meta == job.meta
    assert 5 == sum(
        s.counts[State.READY] + s.counts[State.SCHEDULED] for s in client.broker.queues()
    )  # type: ignore[attr-defined]


def test_what_it_raises_refuses_the_job_and_all_of_its_call() -> None:
    """The caller gets the error as it is, and nothing was stored."""
    client = goose.Client(MemoryBroker(), before_enqueue=[refuse])
    with pytest.raises(PermissionError, match="nobody is greeted"):
        client.enqueue_many(greet, [("ada",), ("nobody",)])

    assert [] == list(client.inspector.find())


@pytest.mark.parametrize(
    ("hook", "error", "says"),
    [
        (lambda job: None, ConfigError, "returned None, not a job"),
        (lambda job: job.evolve(queue="a b"), ConfigError, "cannot name a queue"),
        (lambda job: job.evolve(meta={"x": object()}), CallError, "before_enqueue made it so"),
    ],
)
def test_a_chain_that_makes_nonsense_is_refused(
    hook: Any, error: type[Exception], says: str
) -> None:
    """At the call, before anything is stored."""
    client = goose.Client(MemoryBroker(), before_enqueue=[hook])
    with pytest.raises(error, match=says):
        client.enqueue(greet, "ada")


@pytest.mark.usefixtures("configured")
def test_the_chain_may_be_configured_by_name() -> None:
    """Clients that have none of their own take it; one that has, has only that."""
    goose.configure(broker=MemoryBroker(), before_enqueue=[f"{__name__}:mark"])
    own = goose.Client(before_enqueue=[])

    assert ["default"] == goose.enqueue(greet, "ada").meta["marks"]
    assert {} == own.enqueue(greet, "ada").meta
    goose.configure(broker=MemoryBroker())
    assert {} == goose.enqueue(greet, "ada").meta


def test_a_job_submitted_again_is_not_changed_again() -> None:
    """It is stored as it was to be stored the first time."""
    lost = goose.Client(Gone(), before_enqueue=[mark])
    with pytest.raises(EnqueueError) as caught:
        lost.enqueue(greet, "ada")
    client = goose.Client(MemoryBroker(), before_enqueue=[mark])
    (job,) = client.submit(caught.value.jobs)

    assert {"marks": ["default"]} == stored(client, job).meta


# --- numbers ---------------------------------------------------------------------------------


def test_what_clients_store_is_counted() -> None:
    """By queue and function, with the time a caller waited, once for each call."""
    numbers = Numbers()
    client = goose.Client(MemoryBroker(), metrics=[numbers])
    client.enqueue(greet, "a")
    client.using(queue="mail").enqueue_many(greet, [("b",), ("c",)])
    asyncio.run(client.aio.enqueue_in(5, greet, "d"))
    name = f"{__name__}:greet"
    default, mail = {"queue": "default", "function": name}, {"queue": "mail", "function": name}

    assert [(1, default), (2, mail), (1, default)] == numbers.of(ENQUEUED)
    assert [default, mail, default] == [tags for _, tags in numbers.of(ENQUEUE_TIME)]
    assert all(0 < seconds < 10 for seconds, _ in numbers.of(ENQUEUE_TIME))


def test_what_could_not_be_stored_is_counted_by_what_is_known() -> None:
    """Nothing of it counts as enqueued."""
    numbers = Numbers()
    client = goose.Client(Gone(), metrics=[numbers])
    for call in (
        lambda: client.enqueue(greet, "a"),
        lambda: client.enqueue_many(greet, [("b",)] * 501),
    ):
        with pytest.raises(EnqueueError):
            call()

    assert [(1, "unknown"), (500, "unknown"), (1, "not_stored")] == [
        (count, tags["outcome"]) for count, tags in numbers.of(ENQUEUE_FAILED)
    ]
    assert [] == numbers.of(ENQUEUED)


@pytest.mark.usefixtures("configured")
def test_client_metrics_may_be_configured_and_are_closed_by_whom_they_belong_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was given as an object stays open; a worker's metrics are none of a client's business."""
    mine, workers = Numbers(), Numbers()
    goose.configure(broker=MemoryBroker(), client_metrics=[mine], metrics=[workers])
    goose.enqueue(greet, "a")
    goose.configure(broker=MemoryBroker())
    goose.enqueue(greet, "b")

    assert 1 == len(mine.of(ENQUEUED))
    assert 0 == mine.closed
    assert [] == workers.said
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_broken_backend_fails_no_enqueue(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once, on another thread."""

    class Broken(Numbers):
        never_blocks = False

        def increment(self, name: str, value: float, tags: Tags) -> None:
            raise OSError("down")

        timing = increment

    with goose.Client(MemoryBroker(), metrics=[Broken()]) as client:
        for _ in range(10):
            client.enqueue(greet, "a")

    assert 1 == caplog.text.count("Broken raised; jobs are not affected")
