"""What only PostgreSQL shows of transactional jobs: async ones, zombies in between, its own errors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

import goose
from goose.brokers.base import Session, Sessions, State
from goose.brokers.postgres.completing import AsyncPostgresCompletion
from goose.errors import BrokerUnavailable, JobTimeout
from goose.jobs import Envelope
from goose.testing import drain
from goose.worker.embedded import Worker
from tests.servers.postgres import PostgresServer
from tests.transactional import async_jobs, jobs
from tests.transactional.conftest import Place


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Forget what the test before had called."""
    yield
    jobs.between.clear()
    jobs.seen.clear()
    async_jobs.between.clear()


@pytest.fixture
def place(postgres_place: Place) -> Place:
    """On PostgreSQL."""
    return postgres_place


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.01)


def test_async_functions(place: Place) -> None:
    """What an async function awaited by its connection is one step with its end, too."""
    place.client.enqueue(async_jobs.awrite, "one")
    place.client.enqueue(async_jobs.awrite, "two", "fail")

    assert {"done": 1, "retried": 1} == drain(place.broker).endings
    assert ["one"] == place.effects()


def test_many_async_functions_on_a_worker(place: Place) -> None:
    """They run at once, each in a transaction of its own, and their connections are used again."""
    place.client.enqueue_many(async_jobs.awrite, [(f"{n:02}",) for n in range(40)])
    with Worker(
        place.broker, allow=["tests.transactional.async_jobs"], concurrency=1, async_concurrency=4
    ) as worker:
        wait_until(lambda: worker.statistics().succeeded == 40)
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        [(connections,)] = place.execute(query)

    assert [f"{n:02}" for n in range(40)] == place.effects()
    assert connections <= 15


@pytest.mark.parametrize("carried_out", [True, False])
def test_an_ambiguous_async_commit(
    place: Place, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    """As for sync functions: whether it happened is found out first."""
    place.client.enqueue(async_jobs.awrite, "one")
    commit = AsyncPostgresCompletion.commit

    async def lose(completion: AsyncPostgresCompletion, note: Envelope | None) -> bool:
        if carried_out:
            assert await commit(completion, note)
        else:
            await completion.connection.close()
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(AsyncPostgresCompletion, "commit", lose)
    assert {"done" if carried_out else "retried": 1} == drain(place.broker).endings
    assert (["one"] if carried_out else []) == place.effects()


def test_an_async_timeout_rolls_back(place: Place) -> None:
    """A function that is cancelled at its timeout has written nothing."""
    place.client.using(timeout=0.2).enqueue(async_jobs.awrite, "one")
    async_jobs.between.append(lambda: asyncio.sleep(20))

    drained = drain(place.broker)
    assert {"retried": 1} == drained.endings
    assert isinstance(drained.errors[0], JobTimeout)
    assert [] == place.effects()


def test_a_zombie_of_a_worker(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A job that is recovered while it runs: the first run writes nothing, the second does."""
    place.client.enqueue(jobs.write, "one")
    taken: list[str] = []

    def take_over() -> None:
        if not taken:
            heir = Session(str(uuid.uuid4()))
            broker = place.broker
            assert isinstance(broker, Sessions)
            broker.open(heir, ttl=60)
            [running] = broker.page(State.RUNNING).items
            assert running.session is not None
            orphans = broker.recover(heir, limit=10, dead=running.session)
            taken.extend(orphan.envelope.id for orphan in orphans)
            broker.release(orphans)

    jobs.between.append(take_over)
    with Worker(place.broker, allow=["tests.transactional.jobs"], ttl=1.0) as worker:
        wait_until(
            lambda: worker.statistics().succeeded == 1 and worker.statistics().lost_settles > 0
        )

    assert 1 == len(taken)
    assert ["one"] == place.effects()


def test_a_commit_that_is_refused_is_a_failure(place: Place) -> None:
    """An error that only comes with the commit counts as the function's own."""
    place.execute(
        "ALTER TABLE effects ADD CONSTRAINT once UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"
    )
    place.execute("INSERT INTO effects VALUES ('one')")
    job = place.client.enqueue(jobs.write, "one")

    drained = drain(place.broker)
    assert {"retried": 1} == drained.endings
    assert isinstance(drained.errors[0], psycopg.errors.UniqueViolation)
    stored = place.broker.find(job.id)
    assert stored is not None
    assert State.SCHEDULED is stored.state


def test_a_conflict_may_be_a_success(place: Place) -> None:
    """With ``succeed_on`` the job whose work is done already is done, its own writes undone."""
    place.execute("ALTER TABLE effects ADD UNIQUE (name)")
    place.execute("INSERT INTO effects VALUES ('one')")
    retry = goose.Retry(succeed_on=(psycopg.IntegrityError,))
    place.client.using(retry=retry).enqueue(jobs.write, "one")

    assert {"done": 1} == drain(place.broker).endings
    assert not place.broker.queues()


def test_an_error_that_was_swallowed_is_found(place: Place) -> None:
    """A function that went on in an aborted transaction has not succeeded."""
    place.client.enqueue(jobs.write, "one", "swallow")

    drained = drain(place.broker)
    assert {"retried": 1} == drained.endings
    assert isinstance(drained.errors[0], psycopg.errors.InFailedSqlTransaction)
    assert [] == place.effects()


def test_a_connection_that_is_lost_is_a_failure(place: Place) -> None:
    """Where the server ended the connection before the commit, nothing was written."""
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO effects%'"
    place.client.enqueue(jobs.write, "one")
    jobs.between.append(lambda: place.execute(ended))

    assert {"retried": 1} == drain(place.broker).endings
    assert [] == place.effects()


def test_the_next_job_finds_a_clean_connection(place: Place) -> None:
    """Settings, kinds of rows and temporary tables do not outlive their job."""

    def soil() -> None:
        connection = goose.current().connection
        connection.row_factory = dict_row
        connection.execute("CREATE TEMP TABLE left_over (n integer)")
        connection.execute("SET statement_timeout = '7s'")

    jobs.between.append(soil)
    place.client.enqueue(jobs.write, "one")
    place.client.enqueue(
        jobs.look, "SELECT current_setting('statement_timeout'), to_regclass('left_over')::text"
    )
    drain(place.broker).check()

    assert [[("0", None)]] == jobs.seen


def test_nothing_is_locked_while_it_runs(place: Place, postgres_server: PostgresServer) -> None:
    """A job whose transaction hangs can be recovered: its row is locked only at the end."""
    place.client.enqueue(jobs.write, "one")
    found: list[object] = []

    def look() -> None:
        query = "SELECT id FROM goose.jobs FOR UPDATE NOWAIT"
        found.extend(place.execute(query))

    jobs.between.append(look)
    drain(place.broker).check()
    assert 1 == len(found)
