"""Looking at stored jobs, and changing them from outside."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.base import Broker, Delivery, Inspector, Session, Sessions, Share, State
from goose.brokers.memory import MemoryBroker
from goose.brokers.sqlite import SQLiteBroker
from goose.clients import Client
from goose.errors import Unsupported
from goose.inspecting import PAGE, Inspection
from goose.jobs import Envelope, Failure, Job, decode, seal
from goose.settings import Settings

FAILURE = Failure("app:Oops", "no", first_at=1.0, last_at=2.0, died_at=2.0, reason="retries")


def send(to: str, *, subject: str = "") -> int: ...


def count(n: int) -> None: ...


class Setup:
    """A broker, a client of it, and jobs that can be made dead."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.client = Client(broker, settings=Settings())
        self.inspection: Inspection = self.client.inspector
        self.session = Session("s")
        broker.open(self.session, ttl=1000)

    def take(self, *queues: str) -> list[Delivery]:
        shares = [Share(queue) for queue in queues or ("default",)]
        return list(self.broker.dequeue(self.session, shares, limit=10_000, wait=0))

    def bury(self) -> list[Job[Any]]:
        """Make all ready jobs of the default queue dead, as after a few failures."""
        dead = []
        for delivery in self.take():
            job = decode(delivery.envelope).evolve(
                attempt=3, crashes=1, suspicions=2, deferred_since=5.0, failure=FAILURE
            )
            dead.append(job)
            assert not self.broker.bury([(delivery, seal(job))])
        return dead


@pytest.fixture(params=["memory", "sqlite"])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setup]:
    broker = (
        MemoryBroker()
        if request.param == "memory"
        else SQLiteBroker(f"sqlite:///{tmp_path}/inspected.db")
    )
    assert isinstance(broker, Broker)
    assert isinstance(broker, Inspector)
    assert isinstance(broker, Sessions)
    yield Setup(broker)
    broker.close()


def ids(jobs: Any) -> list[str]:
    return [job.id for job in jobs]


def test_a_job_is_found_by_id_wherever_it_is(setup: Setup) -> None:
    """`get` shows a job with its state, decoded, and nothing for an id that is not stored."""
    job = setup.client.enqueue(send, "x")
    before = datetime.now(UTC)
    later = setup.client.enqueue_in(3600, send, "y")

    ready, scheduled = setup.inspection.get(job.id), setup.inspection.get(later.id)
    assert ready
    assert scheduled
    assert (State.READY, job, "default") == (ready.state, ready.job, ready.queue)
    assert State.SCHEDULED == scheduled.state
    assert timedelta(minutes=59) < scheduled.at - before < timedelta(minutes=61)
    setup.take()
    running = setup.inspection.get(job.id)
    assert running
    assert (State.RUNNING, setup.session) == (running.state, running.session)
    assert None is setup.inspection.get("no-such-job")


def test_jobs_are_found_by_function_arguments_and_predicate(setup: Setup) -> None:
    """Filters see the decoded job, and add up."""
    find = setup.inspection.find
    one = setup.client.enqueue(send, "a", subject="s")
    two = setup.client.enqueue(send, "b")
    three = setup.client.using(queue="numbers").enqueue(count, 3)

    assert {one.id, two.id, three.id} == set(ids(find()))
    assert [one.id, two.id] == ids(find(State.READY, fn=send))
    assert [three.id] == ids(find(fn=three.fn))
    assert [one.id] == ids(find(call=goose.call(send, "a", subject="s")))
    assert [] == ids(find(call=goose.call(send, "a")))
    assert [two.id] == ids(find(fn=send, where=lambda job: job.args[0] > "a"))
    assert [three.id] == ids(find(queue="numbers"))
    assert [] == ids(find(State.DEAD))


def test_a_listing_goes_on_over_pages(setup: Setup) -> None:
    """A listing longer than one page is whole and in order; a limit ends it early."""
    jobs = setup.client.enqueue_many(count, [(n,) for n in range(2 * PAGE + 50)])

    assert ids(jobs) == ids(setup.inspection.find(State.READY))
    assert ids(jobs[: PAGE + 1]) == ids(setup.inspection.find(State.READY, limit=PAGE + 1))
    assert [] == ids(setup.inspection.find(State.READY, limit=0))


def test_what_cannot_be_decoded_is_shown_raw(setup: Setup) -> None:
    """A body that is no job is listed with the reason, and stops no listing."""
    setup.broker.enqueue([Envelope("bad", "default", b"\xff not a job")])
    good = setup.client.enqueue(send, "x")

    bad, fine = setup.inspection.find(State.READY)

    assert ("bad", None, b"\xff not a job") == (bad.id, bad.job, bad.body)
    assert "not strict JSON" in bad.problem
    assert (good, "") == (fine.job, fine.problem)
    assert [good.id] == ids(setup.inspection.find(fn=send))


def test_an_instant_beyond_the_calendar_is_shown_at_its_end(setup: Setup) -> None:
    """A due instant that no calendar has stops no listing."""
    setup.broker.schedule([Envelope("far", "default", b"{}", due_at=9e12)])

    (far,) = setup.inspection.find(State.SCHEDULED)

    assert 9999 == far.at.year


def test_a_replayed_job_starts_again_with_its_history(setup: Setup) -> None:
    """Replay makes dead jobs ready, counts from 0, and keeps what is known of the failures."""
    job = setup.client.using(timeout=5).enqueue(send, "x")
    setup.bury()

    assert [job.id] == setup.inspection.replay()

    (delivery,) = setup.take()
    assert job.evolve(failure=FAILURE) == decode(delivery.envelope)
    assert 0 == setup.inspection.count(State.DEAD)


def test_dead_jobs_are_replayed_by_count_and_by_filter(setup: Setup) -> None:
    """A limit takes the oldest dead first; filters and ids choose."""
    jobs = setup.client.enqueue_many(count, [(n,) for n in range(6)])
    setup.bury()

    assert ids(jobs[:2]) == setup.inspection.replay(limit=2)
    assert [jobs[4].id] == setup.inspection.replay(where=lambda job: job.args == (4,))
    assert [jobs[5].id] == setup.inspection.replay([jobs[5].id, jobs[0].id, "no-such-job"])
    assert 2 == setup.inspection.count(State.DEAD)


def test_more_than_a_page_of_dead_jobs_is_replayed(setup: Setup) -> None:
    """Moving jobs while listing them leaves none out."""
    setup.client.enqueue_many(count, [(n,) for n in range(2 * PAGE + 1)])
    setup.bury()

    assert 2 * PAGE + 1 == len(setup.inspection.replay())
    assert 0 == setup.inspection.count(State.DEAD)


def test_dead_jobs_are_chosen_by_age(setup: Setup) -> None:
    """Only jobs dead for long enough are taken."""
    setup.client.enqueue(count, 1)
    setup.bury()
    now = datetime.now(UTC).timestamp()
    in_an_hour = Inspection(setup.broker, clock=lambda: now + 3600)

    assert [] == setup.inspection.replay(older_than=60)
    assert [] == setup.inspection.pop(older_than=timedelta(minutes=1))
    assert 1 == len(in_an_hour.pop(older_than=timedelta(minutes=1)))


def test_popped_jobs_are_gone_and_in_hand(setup: Setup) -> None:
    """Pop removes the oldest dead jobs and returns them whole."""
    jobs = setup.client.enqueue_many(count, [(n,) for n in range(3)])
    dead = setup.bury()

    assert [dead[0]] == [stored.job for stored in setup.inspection.pop()]
    assert [dead[2]] == [
        stored.job for stored in setup.inspection.pop(limit=5, call=goose.call(count, 2))
    ]
    assert [jobs[1].id] == ids(setup.inspection.find(State.DEAD))


def test_a_job_that_somebody_else_took_is_not_popped(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two who pop the same dead job only the one that removed it gets it."""
    setup.client.enqueue(count, 1)
    setup.bury()
    delete = setup.broker.delete

    def late(ids: Any, *, state: State) -> Any:
        assert 1 == len(setup.inspection.replay())
        return delete(ids, state=state)

    monkeypatch.setattr(setup.broker, "delete", late)

    assert [] == setup.inspection.pop()
    assert 1 == setup.inspection.count(State.READY)


def test_a_dead_body_that_cannot_be_decoded_is_replayed_as_it_is(setup: Setup) -> None:
    """What this Goose cannot read is left to workers that can."""
    setup.broker.enqueue([Envelope("newer", "default", b'{"v":99}', group="g")])
    (delivery,) = setup.take()
    setup.broker.bury([(delivery, delivery.envelope)])

    assert ["newer"] == setup.inspection.replay()

    (again,) = setup.take()
    assert (b'{"v":99}', "g") == (again.envelope.body, again.envelope.group)


def test_jobs_can_be_prioritised_promoted_and_deleted(setup: Setup) -> None:
    """Changes take jobs or ids, and report what was changed."""
    first, second, third = setup.client.enqueue_many(count, [(1,), (2,), (3,)])
    later = setup.client.enqueue_in(3600, count, 4)

    found = setup.inspection.find(call=goose.call(count, 3))
    assert [third.id] == setup.inspection.prioritise(found)
    assert [later.id] == setup.inspection.promote([later.id, first.id])
    assert [second.id] == setup.inspection.delete([second.id, "no"], state=State.READY)
    assert [third.id, first.id, later.id] == ids(d.envelope for d in setup.take())
    assert [] == setup.inspection.delete([first.id], state=State.DEAD)


def test_a_queue_can_be_purged(setup: Setup) -> None:
    """Purge removes all jobs of one state and queue, and says how many."""
    setup.client.enqueue_many(count, [(n,) for n in range(3)])
    setup.client.using(queue="other").enqueue(count, 1)

    assert 0 == setup.inspection.purge(State.READY, "default", older_than=60)
    assert 3 == setup.inspection.purge(State.READY, "default")
    assert ["other"] == [stats.queue for stats in setup.inspection.queues()]


class Blind:
    """A broker that cannot be looked into."""

    capabilities: frozenset[Any] = frozenset()

    def nothing(self, *args: object, **kwargs: object) -> Any: ...

    enqueue = schedule = dequeue = ack = release = requeue = bury = wake = close = nothing


def test_a_broker_without_an_inspector_says_so() -> None:
    """Asking a broker that cannot list its jobs is refused by name."""
    with pytest.raises(Unsupported, match="Blind cannot list its jobs"):
        _ = Client(Blind(), settings=Settings()).inspector
