"""Middleware that comes with Goose, around real executions of an embedded worker."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import pstats
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.memory import MemoryBroker
from goose.errors import MissingDriver
from goose.middleware.carry import Carry
from goose.middleware.pipeline import Pipeline
from goose.middleware.profiling import Profiling, note, profiled
from goose.middleware.scoped import only
from goose.middleware.sqlalchemy_sessions import SessionPerJob
from goose.testing import drain

HERE = "tests.middleware.test_shipped"
said: queue.SimpleQueue[Any] = queue.SimpleQueue()
tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
locale: contextvars.ContextVar[str] = contextvars.ContextVar("locale")
clients: list[goose.Client] = []


def who() -> str:
    said.put((tenant.get("none"), locale.get("none")))
    return tenant.get("none")


async def awho() -> None:
    await asyncio.sleep(0)
    said.put((tenant.get("none"), locale.get("none")))


def fail() -> None:
    raise ValueError("no")


async def afail() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


def follow() -> None:
    clients[-1].enqueue(who)


def double(number: int) -> int:
    said.put(number)
    return 2 * number


def spin() -> None:
    while True:
        pass


def skip() -> None:
    raise goose.Skip("why not")


class Bench:
    """A client and a worker on one broker."""

    def __init__(self, *before: Any, broker: Any = None) -> None:
        self.broker = broker or MemoryBroker()
        self.client = goose.Client(
            self.broker, before_enqueue=before, retry=goose.Retry(max_retries=0)
        )
        clients.append(self.client)

    @contextmanager
    def working(self, *middleware: Any, **options: Any) -> Iterator[goose.Worker]:
        options.setdefault("concurrency", 1)
        with goose.Worker(self.broker, allow=[HERE], middleware=middleware, **options) as worker:
            yield worker
            deadline = time.monotonic() + 20
            while not worker.is_empty():
                assert time.monotonic() < deadline
                time.sleep(0.002)


def heard(count: int = 1) -> list[Any]:
    return [said.get(timeout=20) for _ in range(count)]


# --- context ---------------------------------------------------------------------------------


def test_context_travels_to_the_execution_and_on_to_what_it_enqueues() -> None:
    """Sync and async functions see the values of the enqueue; what was not set is left alone."""
    carry = Carry(tenant=tenant, locale=locale)
    bench = Bench(carry.note)
    with bench.working(carry):
        token = tenant.set("acme")
        bench.client.enqueue(who)
        bench.client.enqueue(awho)
        bench.client.enqueue(follow)
        tenant.reset(token)
        bench.client.enqueue(who)
        found = heard(4)

    assert [("acme", "none")] * 3 + [("none", "none")] == sorted(found)
    assert "none" == tenant.get("none")


@pytest.mark.parametrize("fn", [fail, afail])
def test_what_was_carried_is_on_the_log_records_of_a_failure(
    fn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The record that says that a job is dead is written where it failed."""
    carry = Carry(tenant=tenant)
    bench = Bench(carry.note)
    seen: list[Any] = []

    class Look(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "is dead" in record.getMessage():
                from goose.middleware.log_context import fields

                seen.append((fields(), tenant.get("none")))
            return True

    look = Look()
    logging.getLogger("goose.worker").addFilter(look)
    try:
        token = tenant.set("acme")
        job = bench.client.enqueue(fn)
        tenant.reset(token)
        with bench.working(carry):
            pass
    finally:
        logging.getLogger("goose.worker").removeFilter(look)

    ((fields, value),) = seen
    assert "acme" == value == fields["tenant"]
    assert job.id == fields["job_id"]


# --- some jobs only --------------------------------------------------------------------------


def test_only_those_that_are_meant() -> None:
    """By queue, by function or its name, by a condition; all that is given must hold."""
    bench = Bench()

    def saying(word: str) -> Any:
        @contextmanager
        def middleware(execution: goose.Execution) -> Iterator[None]:
            said.put(word)
            yield

        return middleware

    chain = [
        only(saying("mail"), queues=["mail"]),
        only(saying("double"), functions=[double]),
        only(saying("named"), functions=[f"{HERE}:double"], queues=["mail"]),
        only(saying("big"), when=lambda e: e.args[0] > 5),
    ]
    with bench.working(*chain, queues=["default", "mail"]):
        bench.client.enqueue(double, 1)
        assert ["double", 1] == heard(2)
        bench.client.using(queue="mail").enqueue(double, 9)
        assert ["mail", "double", "named", "big", 9] == heard(5)


def test_an_async_middleware_may_be_for_async_functions_only() -> None:
    """The sync ones beside them run without it."""

    @asynccontextmanager
    async def around(execution: goose.Execution) -> Any:
        said.put("async")
        yield

    bench = Bench()
    with bench.working(only(around, functions=[awho])):
        bench.client.enqueue(who)
        bench.client.enqueue(awho)
        assert {"async", ("none", "none")} == set(heard(3))


# --- pipelines -------------------------------------------------------------------------------


def test_what_follows_is_enqueued_once_for_each_result() -> None:
    """From result and arguments; nothing follows a failure, a skip, or an empty list."""
    bench = Bench()
    pipeline = Pipeline(bench.client)
    pipeline.after(double, double, args=lambda e: [(e.result,)] if e.result < 8 else [])
    pipeline.after(fail, double)
    pipeline.after(skip, double)
    with bench.working(pipeline):
        bench.client.enqueue(fail)
        bench.client.enqueue(skip)
        bench.client.enqueue(double, 1)
        assert [1, 2, 4] == heard(3)
    assert said.empty()


def test_an_execution_that_is_repeated_enqueues_no_second_copy() -> None:
    """Follow-up jobs have ids that depend on the job before them alone."""
    bench = Bench()
    pipeline = Pipeline(bench.client)
    pipeline.after(double, double, double)
    execution = goose.Execution(bench.client.enqueue(double, 1), (1,), {}, {})
    for _ in range(2):
        with pipeline(execution):
            execution.result, execution.returned = 2, True

    assert 3 == len(list(bench.client.inspector.find()))


# --- profiling -------------------------------------------------------------------------------


def test_jobs_are_profiled_on_demand(own_folder: Path) -> None:
    """Those enqueued inside `profiled` leave a file; a hostile id stays in the folder."""
    bench = Bench(note)
    bench.client.enqueue(double, 1)
    with profiled():
        job = bench.client.enqueue(double, 2)
        evil = bench.client.sealer.seal(double, (3,), {})[0].evolve(id="../../evil")
        bench.client.submit([evil])
    drain(bench.client, middleware=[Profiling(own_folder / "profiles")]).check()
    heard(3)

    files = sorted(path.name for path in (own_folder / "profiles").iterdir())
    assert (
        sorted([f"{HERE}.double-{job.id}-0.pstats", f"{HERE}.double-.._.._evil-0.pstats"]) == files
    )
    stats = pstats.Stats(str(own_folder / "profiles" / f"{HERE}.double-{job.id}-0.pstats"))
    assert any(name == "double" for _, _, name in stats.stats)  # type: ignore[attr-defined]


def test_a_profile_that_cannot_be_written_costs_a_log_line(
    own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is done all the same."""
    (own_folder / "file").write_text("")
    bench = Bench()
    bench.client.enqueue(double, 1)
    always = Profiling(own_folder / "file", when=lambda _: True)
    drain(bench.client, middleware=[always]).check()
    heard()

    assert "cannot be written" in caplog.text
    assert [] == list(bench.client.inspector.find())


def test_a_job_can_be_profiled_after_another_was_interrupted(own_folder: Path) -> None:
    """In the process in which a timeout was raised; what it leaves behind stops no profiler."""
    bench = Bench(note)
    with bench.working(Profiling(own_folder / "profiles")):
        bench.client.using(timeout=0.05).enqueue(spin)
        with profiled():
            bench.client.enqueue(double, 4)
        assert [4] == heard()

    assert 1 == len(list((own_folder / "profiles").iterdir()))


# --- databases -------------------------------------------------------------------------------


def test_a_sqlalchemy_session_belongs_to_one_job(own_folder: Path) -> None:
    """What a job left uncommitted is rolled back, and the next one finds a new session."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import scoped_session, sessionmaker

    engine = create_engine(f"sqlite:///{own_folder}/app.db")
    session = scoped_session(sessionmaker(engine))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    sessions = SessionPerJob(session)
    seen: list[int] = []
    for _ in range(2):
        with sessions(None):  # type: ignore[arg-type, union-attr]
            seen.append(id(session()))
            session.execute(text("INSERT INTO t VALUES (1)"))
    with sessions(None):  # type: ignore[arg-type, union-attr]
        session.execute(text("INSERT INTO t VALUES (2)"))
        session.commit()

    with engine.connect() as connection:
        assert [(2,)] == list(map(tuple, connection.execute(text("SELECT n FROM t"))))
    engine.dispose()


def test_an_async_registry_is_awaited() -> None:
    """An async scoped session is removed on the loop, before and after."""

    class Registry:
        removed = 0

        async def remove(self) -> None:
            await asyncio.sleep(0)
            self.removed += 1

    registry = Registry()
    bench = Bench()
    with bench.working(only(SessionPerJob(registry), functions=[awho])):
        bench.client.enqueue(awho)
        heard()

    assert 2 == registry.removed


DJANGO = """
import time
from contextlib import contextmanager

import django
from django.conf import settings

settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": "app.db", "CONN_MAX_AGE": 0,
}})
django.setup()
from asgiref.sync import sync_to_async
from django.db import connection

import goose
from goose.middleware.django_connections import django_connections

opened, left = [], []

def use():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    opened.append(connection.connection)

async def ause():
    await sync_to_async(use)()

@contextmanager
def look(execution):
    yield
    left.append(connection.connection)

def main():
    client = goose.Client("memory://django")
    around = [look, django_connections]
    with goose.Worker("memory://django", allow=["django_app"], concurrency=1, middleware=around) as worker:
        client.enqueue(use)
        client.enqueue(ause)
        deadline = time.monotonic() + 20
        while (len(left) < 2 or not worker.is_empty()) and time.monotonic() < deadline:
            time.sleep(0.002)
    print(len(opened), left)
"""


def test_djangos_connections_are_closed_as_after_a_request(own_folder: Path) -> None:
    """Around sync and async functions, on the thread that has them; Django is set up once for a process."""
    (own_folder / "django_app.py").write_text(DJANGO)
    done = subprocess.run(
        [sys.executable, "-c", "import django_app; django_app.main()"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip

    assert "2 [None, None]\n" == done.stdout, done.stderr


# --- drivers that are not there --------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package", "line"),
    [
        (
            "goose.middleware.opentelemetry",
            "opentelemetry",
            r'pip install "goose-jobs\[opentelemetry\]"',
        ),
        (
            "goose.metrics.opentelemetry",
            "opentelemetry",
            r'pip install "goose-jobs\[opentelemetry\]"',
        ),
        ("goose.middleware.sentry", "sentry_sdk", r'pip install "goose-jobs\[sentry\]"'),
        ("goose.middleware.django_connections", "django", "pip install django"),
    ],
)
def test_a_missing_package_names_the_pip_line(
    module: str, package: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the middleware cannot be imported, and says what to install."""
    import importlib

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingDriver, match=line):
        importlib.import_module(module)
