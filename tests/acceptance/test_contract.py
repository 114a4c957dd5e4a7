"""The public contract of the client side, through the public door only: ``import goose``."""

from __future__ import annotations

import asyncio
import builtins
import dataclasses
import inspect
import json
import logging
import math
import pickle
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import goose
from tests.acceptance import jobs, matrix
from tests.acceptance.command import environment, run

NAIVE = datetime(2031, 1, 1)  # noqa: DTZ001 - what is refused

# fmt: off
NAMES = [
    "enqueue", "enqueue_in", "enqueue_at", "enqueue_many", "call", "using", "configure",
    "job", "submit", "current", "aio", "Client", "Worker", "Retry", "Job", "Call",
    "Execution", "register_type", "Postpone", "Bury", "Skip", "Control", "JobTimeout",
    "GooseError", "ConfigError", "MissingDriver", "CallError", "FunctionError",
    "ArgumentError", "PayloadTooLarge", "EnqueueError", "BrokerError", "BrokerUnavailable",
    "SessionLost", "Unsupported", "Undecodable", "NewerVersion", "UnknownFunction",
]
# fmt: on


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Settings of one test do not reach the next, and jobs go to memory."""
    goose.configure(broker=f"memory://{uuid.uuid4().hex}")
    yield
    goose.configure()


@pytest.fixture
def project(own_folder: Path) -> Iterator[Path]:
    """A folder without any configuration."""
    goose.configure()
    yield own_folder
    goose.configure()


# --- names and types ---------------------------------------------------------------------


def test_every_pinned_name_is_at_the_door() -> None:
    """Everything of the contract is importable from ``goose`` itself, and listed."""
    assert [] == [name for name in NAMES if not hasattr(goose, name)]
    assert set(NAMES) <= set(goose.__all__)
    assert set(goose.__all__) <= set(dir(goose))


def test_the_errors_are_one_tree() -> None:
    """One base for errors, one for what steers a job; a wrong call is also a TypeError."""
    errors = [getattr(goose, name) for name in goose.__all__ if name.endswith(("Error", "Driver"))]
    assert [] == [kind for kind in errors if not issubclass(kind, goose.GooseError)]
    for kind in (goose.Postpone, goose.Bury, goose.Skip, goose.JobTimeout):
        assert issubclass(kind, goose.Control)
        assert not issubclass(kind, Exception)
    for kind in (goose.FunctionError, goose.ArgumentError, goose.PayloadTooLarge):
        assert issubclass(kind, TypeError)
    assert "    GooseError\n    ├──" in str(inspect.getdoc(inspect.getmodule(goose.GooseError)))


def test_no_submodule_hides_a_public_name() -> None:
    """After all submodules are imported, ``goose.job`` is still the decorator, and so on."""
    program = (
        "import goose, importlib, pkgutil\n"
        "before = {n: getattr(goose, n) for n in goose.__all__}\n"
        "for m in pkgutil.walk_packages(goose.__path__, 'goose.'):\n"
        "    if not m.name.endswith(('__main__', '.child')): importlib.import_module(m.name)\n"
        "print([n for n, v in before.items() if getattr(goose, n) is not v])\n"
    )
    assert "[]\n" == run(sys.executable, "-c", program, at=Path.cwd()).stdout


def test_import_goose_is_light() -> None:
    """No driver, no pydantic, no asyncio; and not above half a second of CPU on a bad day."""
    program = (
        "import sys, time; began = time.process_time(); import goose\n"
        "heavy = {'pydantic', 'asyncio', 'sqlite3', 'click', 'rich', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time() - began)"
    )
    loaded, _, seconds = run(sys.executable, "-c", program, at=Path.cwd()).stdout.rpartition(" ")

    assert "[]" == loaded
    assert float(seconds) < 0.5


# --- verbs -------------------------------------------------------------------------------


def test_a_job_is_frozen_and_has_a_time_ordered_id() -> None:
    """What enqueue returns cannot be changed; its id is a UUIDv7, later ones are greater."""
    first, second = goose.enqueue(jobs.send, "a", subject="b"), goose.enqueue(jobs.say)

    assert isinstance(first, goose.Job)
    assert 7 == uuid.UUID(first.id).version
    assert first.id < second.id
    assert ("tests.acceptance.jobs:send", ("a",), {"subject": "b"}) == (
        first.fn, first.args, first.kwargs,
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.id = "x"  # type: ignore[misc]
    assert first == pickle.loads(pickle.dumps(first))
    assert {first: 1}[first] == 1


def test_delays_and_instants() -> None:
    """Seconds, a timedelta, an aware instant; one that has passed means now."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    scheduled = [
        goose.enqueue_in(300, jobs.say).id,
        goose.enqueue_in(timedelta(minutes=5), jobs.say, "x").id,
        goose.enqueue_at(soon, jobs.say).id,
        goose.enqueue_in(0.5, jobs.say).id,
    ]
    past = goose.enqueue_at(datetime(2001, 1, 1, tzinfo=UTC), jobs.say)

    inspector = goose.using().inspector
    found = {stored.job.id: stored for stored in inspector.find() if stored.job is not None}
    assert {*scheduled, past.id} == set(found)
    states = {found[id_].state.value for id_ in scheduled}
    assert {"scheduled"} == states


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: goose.enqueue_at(NAIVE, jobs.say), "no time zone"),
        (lambda: goose.enqueue_at(5, jobs.say), "enqueue_in"),
        (lambda: goose.enqueue_at(date(2031, 1, 1), jobs.say), "datetime"),
        (lambda: goose.enqueue_at(datetime(9999, 1, 1, tzinfo=UTC), jobs.say), "hundred years"),
        (lambda: goose.enqueue_in(-1, jobs.say), "-1"),
        (lambda: goose.enqueue_in(math.nan, jobs.say), "nan"),
        (lambda: goose.enqueue_in(math.inf, jobs.say), "inf"),
        (lambda: goose.enqueue_in("5", jobs.say), "'5'"),
        (lambda: goose.enqueue_in(True, jobs.say), "True"),
        (lambda: goose.enqueue_in(jobs.say, 5), "neither seconds nor a timedelta"),
        (lambda: goose.enqueue_in(timedelta(days=-1), jobs.say), "-86400"),
    ],
)
def test_a_wrong_time_is_refused(call: Callable[[], object], why: str) -> None:
    """The message shows the value; nothing is stored."""
    with pytest.raises(goose.CallError, match=why):
        call()
    assert [] == list(goose.using().inspector.find())


def test_enqueue_many_takes_tuples_and_calls() -> None:
    """Tuples of arguments, goose.call and both mixed; the jobs come back in order."""
    items = [("a",), goose.call(jobs.send, "b", subject="s"), ("c",)]
    stored = goose.enqueue_many(jobs.send, iter(items))

    assert [("a",), ("b",), ("c",)] == [job.args for job in stored]
    assert [{}, {"subject": "s"}, {}] == [job.kwargs for job in stored]
    assert [] == goose.enqueue_many(jobs.send, [])
    assert 1500 == len({job.id for job in goose.enqueue_many(jobs.say, [()] * 1500)})
    assert isinstance(items[1], goose.Call)


@pytest.mark.parametrize(
    "item", ["ab", {"to": "a"}, ["a"], 5, None, b"ab", goose.call(jobs.say, "other function")]
)
def test_enqueue_many_refuses_what_is_no_call(item: object) -> None:
    """A text is not spread into letters, nor a dict into keywords: the message shows the forms."""
    with pytest.raises(goose.CallError, match=r"tuples of arguments.*goose\.call\(send, …\)"):
        goose.enqueue_many(jobs.send, [("fine",), item])  # type: ignore[list-item]
    assert [] == list(goose.using().inspector.find())


@pytest.mark.parametrize("items", ["ab", {"a": 1}, ("a", "b")])
def test_enqueue_many_refuses_one_value_for_a_list(items: Any) -> None:
    """Forgetting the list or the tuples is told."""
    with pytest.raises(goose.CallError, match=r"tuples of arguments"):
        goose.enqueue_many(jobs.send, items)


def test_the_async_verbs_are_the_same() -> None:
    """`goose.aio` has every verb; jobs are stored when they return."""

    async def all_of_them() -> list[goose.Job[Any]]:
        bound = goose.aio.using(queue="mail")
        return [
            await goose.aio.enqueue(jobs.say_async, "a"),
            await goose.aio.enqueue_in(timedelta(seconds=9), jobs.say, "b"),
            await goose.aio.enqueue_at(datetime(2001, 1, 1, tzinfo=UTC), jobs.say),
            *await goose.aio.enqueue_many(jobs.send, [("c",), goose.call(jobs.send, "d")]),
            await bound.enqueue(jobs.say, "e"),
            *await asyncio.gather(*(goose.aio.enqueue(jobs.say, str(n)) for n in range(50))),
        ]

    made = asyncio.run(all_of_them())
    found = {stored.job.id for stored in goose.using().inspector.find() if stored.job is not None}
    assert {job.id for job in made} == found
    assert "mail" == made[5].queue
    verbs = {"enqueue", "enqueue_in", "enqueue_at", "enqueue_many", "using", "submit"}
    assert verbs <= set(dir(goose.aio))
    with pytest.raises(goose.ArgumentError):
        asyncio.run(goose.aio.enqueue(jobs.send))  # type: ignore[arg-type]


def test_no_verb_takes_keywords_of_its_own() -> None:
    """Options go through using: a misplaced one is the function's unknown argument."""
    with pytest.raises(TypeError, match="queue"):
        goose.enqueue(jobs.say, "x", queue="mail")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("delay", "seconds"), [(3, 3.0), (0, 0.0), (timedelta(minutes=1), 60.0), (0.5, 0.5)]
)
def test_postpone_takes_seconds_or_a_timedelta(delay: float | timedelta, seconds: float) -> None:
    """Like every duration at the door."""
    assert repr(seconds) == repr(goose.Postpone(delay).seconds)


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "5", None, True, timedelta(days=-1)])
def test_postpone_refuses_what_is_no_delay(delay: Any) -> None:
    """Where it is raised, so that the job's failure names the line."""
    with pytest.raises((TypeError, ValueError), match="Postpone"):
        goose.Postpone(delay)


# --- options -----------------------------------------------------------------------------


def test_using_is_immutable_and_adds_up() -> None:
    """Each using is another client; what the first one said stays, what it did not say is added."""
    mail = goose.using(queue="mail", retry=goose.Retry(max_retries=5))
    both = mail.using(timeout=9, group="g")

    assert "default" == goose.enqueue(jobs.say).queue
    assert ("mail", None, None) == facts(mail.enqueue(jobs.say))
    assert ("mail", 9.0, "g") == facts(both.enqueue(jobs.say))
    assert {"max_retries": 5} == both.enqueue(jobs.say).retry
    assert {"max_retries": 1} == both.using(retry=goose.Retry(max_retries=1)).enqueue(
        jobs.say
    ).retry


def facts(job: goose.Job[Any]) -> tuple[str, float | None, str | None]:
    return (job.queue, job.timeout, job.group)


def test_a_broker_per_call() -> None:
    """Any broker, at run time, for one call; the others stay where they were."""
    other = f"memory://{uuid.uuid4().hex}"
    goose.using(queue="mail").using(broker=other).enqueue(jobs.say)

    assert [] == list(goose.using().inspector.find())
    (there,) = goose.using(broker=other).inspector.find()
    assert there.job is not None
    assert "mail" == there.job.queue


def test_the_decorator_returns_the_function_itself() -> None:
    """It only attaches options, which are frozen into the job; the function stays callable."""

    def plain() -> int:
        return 3

    assert plain is goose.job(queue="mail")(plain)
    job = goose.enqueue(jobs.decorated, "x")
    assert ("mail", 30.0, {"max_retries": 7}) == (job.queue, job.timeout, job.retry)


def test_precedence_is_field_by_field(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """call > bound > @goose.job > Client > configure() > environment > file > default."""
    (project / "goose.toml").write_text(
        'broker = "memory://precedence"\nqueue = "file"\ntimeout = "11s"\nmax_bytes = 2000\n'
        "retry = {max_retries = 11}\n"
    )
    goose.configure()
    assert ("file", 11.0, None) == facts(goose.enqueue(jobs.say))
    assert {"max_retries": 11} == goose.enqueue(jobs.say).retry

    monkeypatch.setenv("GOOSE_QUEUE", "env")
    goose.configure()
    assert ("env", 11.0, None) == facts(goose.enqueue(jobs.say))

    goose.configure(timeout=12)
    assert ("env", 12.0, None) == facts(goose.enqueue(jobs.say))
    goose.configure(queue="configured")
    assert ("configured", 11.0, None) == facts(goose.enqueue(jobs.say))

    client = goose.Client(queue="client", group="g")
    assert ("client", 11.0, "g") == facts(client.enqueue(jobs.say))
    assert ("mail", 30.0, "g") == facts(client.enqueue(jobs.decorated))
    assert {"max_retries": 7} == client.enqueue(jobs.decorated).retry

    bound = client.using(queue="bound")
    assert ("bound", 30.0, "g") == facts(bound.enqueue(jobs.decorated))
    nearer = bound.using(timeout=math.inf)
    assert ("bound", None, "g") == facts(nearer.enqueue(jobs.decorated))
    with pytest.raises(goose.PayloadTooLarge, match="2,000"):
        goose.enqueue(jobs.say, "x" * 2000)


def test_pyproject_is_a_file_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[tool.goose] of the nearest pyproject.toml, also from a folder below it."""
    (project / "pyproject.toml").write_text('[tool.goose]\nqueue = "p"\nbroker = "memory://"\n')
    below = project / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    goose.configure()

    assert "p" == goose.enqueue(jobs.say).queue


@pytest.mark.parametrize("place", ["goose.toml", "pyproject.toml", None])
def test_the_default_broker_is_a_file_beside_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    """goose.db lies beside the nearest configuration or project, else in the current folder."""
    below = project / "deep"
    below.mkdir()
    if place:
        (project / place).write_text("")
    monkeypatch.chdir(below)
    goose.configure()
    goose.enqueue(jobs.say)
    goose.using().close()

    assert (project if place else below) / "goose.db" in [*project.rglob("goose.db")]
    assert 1 == len([*project.rglob("goose.db")])


@pytest.mark.parametrize(
    ("place", "text", "where", "near"),
    [
        ("goose.toml", "quue = 'a'", r"goose\.toml: quue", "queue"),
        ("pyproject.toml", "[tool.goose]\nbrokr = 'a'", r"pyproject\.toml: brokr", "broker"),
        ("GOOSE_BROKERR", "x", "variable GOOSE_BROKERR", "GOOSE_BROKER"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str, where: str, near: str
) -> None:
    """Whatever place it is in, the message names place, key and what was probably meant."""
    if place.endswith(".toml"):
        Path(place).write_text(text)
    else:
        monkeypatch.setenv(place, text)
    with pytest.raises(goose.ConfigError, match=f"{where}.*did you mean {near}"):
        goose.enqueue(jobs.say)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"quueue": "a"}, "did you mean queue"),
        ({"broker": "localhost"}, "redis://localhost"),
        ({"timeout": "soon"}, "'soon'"),
        ({"queue": "a b"}, "'a b' cannot name a queue"),
        ({"concurrency": 0}, "at least 1"),
        ({"retry": 5.5}, "max_retries"),
    ],
)
def test_configure_complains_where_it_is_called(options: dict[str, Any], why: str) -> None:
    """The error names configure() and the key, and nothing has changed."""
    with pytest.raises(goose.ConfigError, match=rf"configure\(\): {next(iter(options))}.*{why}"):
        goose.configure(**options)
    goose.enqueue(jobs.say)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: goose.using(queue="a b"), "a b"),
        (lambda: goose.using(timeout=0), "math.inf for none"),
        (lambda: goose.using(timeout=-1), "-1"),
        (lambda: goose.using(retry="5"), "5"),  # type: ignore[arg-type]
        (lambda: goose.using(group=""), "group"),
        (lambda: goose.job(queue=""), "''"),
        (lambda: goose.Client(timeout="soon"), "'soon'"),
    ],
)
def test_wrong_options_are_refused_where_they_are_bound(
    make: Callable[[], object], why: str
) -> None:
    """Not at the enqueue, and not in the worker."""
    with pytest.raises(goose.ConfigError, match=why):
        make()


def test_unknown_options_of_using_are_type_errors() -> None:
    """A misspelt option is found at once."""
    with pytest.raises(TypeError, match="qeue"):
        goose.using(qeue="a")  # type: ignore[call-arg]


# --- brokers by URL ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://x", "unknown scheme"),
        ("sqlit:///x", "did you mean sqlite://"),
        ("goose.db", "URL"),
        ("", "'' is not a URL"),
        ("sqlite:///x?synchonous=full", "synchronous"),
        ("sqlite:///x?synchronous=off", "full or normal"),
        ("sqlite://x.db", "sqlite:///"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("memory://x?namspace=a", "namespace"),
    ],
)
def test_a_wrong_url_is_told_with_the_fix(url: str, why: str) -> None:
    """The error names the URL and the fix, at the first use."""
    with pytest.raises(goose.ConfigError, match=why) as caught:
        goose.using(broker=url).enqueue(jobs.say)
    assert url.partition("?")[0] in str(caught.value) or url in str(caught.value)


def test_a_missing_driver_names_what_to_install() -> None:
    """The exact line for pip, for the environment that lacks it."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import goose\n"
        "goose.Worker('memory://', allow=['json'], metrics=['prometheus://:0']).start()"
    )
    done = run(sys.executable, "-c", program, at=Path.cwd())

    assert 1 == done.returncode
    last = done.stderr.splitlines()[-1]
    assert last.startswith("goose.errors.MissingDriver: ")
    assert 'pip install "goose-jobs[prometheus]"' in last


def test_secrets_in_urls_are_not_shown() -> None:
    """A password never reaches a message."""
    with pytest.raises(goose.ConfigError) as caught:
        goose.using(broker="mysql://me:hunter2@host/0?token=hunter2").enqueue(jobs.say)
    assert "hunter2" not in str(caught.value)


def test_memory_urls_share_by_name_and_namespace() -> None:
    """memory://name is one broker in the process, namespaces in it are apart."""
    name = uuid.uuid4().hex
    goose.using(broker=f"memory://{name}").enqueue(jobs.say)

    assert 1 == len(list(goose.Client(f"memory://{name}").inspector.find()))
    assert 0 == len(list(goose.Client(f"memory://{name}?namespace=b").inspector.find()))


def test_sqlite_urls_name_a_file_and_namespaces(project: Path) -> None:
    """Relative and absolute paths; another namespace in the same file sees nothing."""
    with goose.Client("sqlite:///jobs.db") as client:
        client.enqueue(jobs.say)
    with goose.Client(f"sqlite:///{project}/jobs.db") as client:
        assert 1 == len(list(client.inspector.find()))
    with goose.Client(f"sqlite:///{project}/jobs.db?namespace=b") as client:
        assert 0 == len(list(client.inspector.find()))


def test_a_job_lives_and_dies_with_the_callers_transaction(project: Path) -> None:
    """`using(connection=…)`: committed means stored, rolled back means never existed."""
    with goose.Client("sqlite:///jobs.db") as client:
        client.enqueue(jobs.say)
        connection = sqlite3.connect("jobs.db", isolation_level=None)
        for end, expected in (("ROLLBACK", 1), ("COMMIT", 2)):
            connection.execute("BEGIN")
            client.using(connection=connection).enqueue(jobs.say, end)
            connection.execute(end)
            assert expected == len(list(client.inspector.find()))
        elsewhere = sqlite3.connect("other.db", isolation_level=None)
        elsewhere.execute("BEGIN")
        with pytest.raises(goose.GooseError, match=r"other\.db"):
            client.using(connection=elsewhere).enqueue(jobs.say)
        connection.close()
        elsewhere.close()
        with pytest.raises(goose.ConfigError, match=r"a object.*sqlite3.Connection"):
            client.using(connection=object()).enqueue(jobs.say)
    with pytest.raises(goose.Unsupported, match=r"MemoryBroker.*transaction"):
        goose.using(broker="memory://", connection=object())


# --- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda: None, "lambda"),
        (jobs.nameless, "lambda"),
        (jobs.nested(), "inside another function"),
        (jobs.Box().method, "method"),
        (jobs.Box.static, "inside a class"),
        (jobs.Box, "class"),
        (jobs.partial, "partial"),
        (jobs.generate, "generator"),
        (builtins.print, "builtin"),
        ("app.tasks:send", "'app.tasks:send'"),
        (None, r"None is not a function.*enqueue\(send"),
    ],
)
def test_what_a_worker_could_not_find_is_refused(fn: Any, why: str) -> None:
    """The message says what it is and what to write instead."""
    with pytest.raises(goose.FunctionError, match=why):
        goose.enqueue(fn)


def test_a_decorated_function_is_itself() -> None:
    """functools.wraps is enough: the job names the function, the worker calls the decorated one."""
    assert "tests.acceptance.jobs:wrapped" == goose.enqueue(jobs.wrapped, "x").fn


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: goose.enqueue(jobs.send), ["jobs:send", "'to'"]),
        (lambda: goose.enqueue(jobs.send, "a", "b"), ["jobs:send", "too many positional"]),
        (lambda: goose.enqueue(jobs.send, "a", sbject="b"), ["jobs:send", "'sbject'"]),
        (lambda: goose.enqueue(jobs.send, "a", to="b"), ["jobs:send", "'to'"]),
        (lambda: goose.enqueue(jobs.send, 5), ["jobs:send", "argument to = ", "5", "str"]),
        (
            lambda: goose.enqueue(matrix.untyped, {1, 2}),
            ["matrix:untyped", "argument value = ", "{1, 2}", "annotate"],
        ),
        (
            lambda: goose.enqueue(matrix.untyped, (1,)),
            ["argument value = ", "(1,)", "list", "annotate"],
        ),
        (lambda: goose.enqueue(matrix.untyped, object()), ["argument value = ", "<object object"]),
        (
            lambda: goose.enqueue(matrix.moment, NAIVE),
            ["matrix:moment", "argument when = ", "2031", "time zone", "datetime.now(UTC)"],
        ),
        (
            lambda: goose.enqueue(matrix.moment, "2031-01-01T00:00:00Z"),
            ["argument when = ", "datetime"],
        ),
        (
            lambda: goose.enqueue(matrix.scalars, "x", Decimal(1), 1, 1, 1),
            ["matrix:scalars", "argument a = ", "'x'", "UUID"],
        ),
        (
            lambda: goose.enqueue(jobs.take_lock, jobs.Lock()),
            ["jobs:take_lock", "argument lock = ", "no JSON form", "goose.register_type"],
        ),
        (lambda: goose.enqueue(matrix.untyped, math.nan), ["argument value = ", "nan"]),
        (lambda: goose.enqueue(matrix.untyped, {1: "a"}), ["argument value = ", "key 1"]),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], object], named: list[str]) -> None:
    """Function, argument, value and fix are in the message; it is a TypeError at the call."""
    with pytest.raises(goose.ArgumentError) as caught:
        call()
    assert [] == [word for word in named if word not in str(caught.value)], str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert [] == list(goose.using().inspector.find())


def test_limits_of_size_and_depth() -> None:
    """1 MiB unless configured, 64 levels; the message has both numbers and the way out."""
    with pytest.raises(goose.PayloadTooLarge, match=r"1,048,576.*reference.*max_bytes"):
        goose.enqueue(jobs.say, "x" * 1_048_577)
    deep: list[Any] = []
    for _ in range(70):
        deep = [deep]
    with pytest.raises(goose.CallError, match="64 levels"):
        goose.enqueue(matrix.untyped, deep)


SCRIPT = """
import sys, goose
def job(): ...
print(goose.enqueue(job).fn)
"""


def test_a_script_has_no_name_for_its_functions(project: Path) -> None:
    """As a script it is refused with the fix; as a module its real name is used."""
    (project / "app").mkdir()
    (project / "app" / "script.py").write_text(SCRIPT)
    env = environment(GOOSE_BROKER="memory://")

    as_script = run(sys.executable, "app/script.py", at=project, env=env)
    as_module = run(sys.executable, "-m", "app.script", at=project, env=env)

    assert 1 == as_script.returncode
    assert "python -m package.module" in as_script.stderr.splitlines()[-1]
    assert "app.script:job\n" == as_module.stdout


# --- retry -------------------------------------------------------------------------------


def test_a_policy_travels_by_value_and_only_its_differences() -> None:
    """Fields at their default are not written; functions and classes travel by name."""
    retry = goose.Retry(
        max_retries=None, backoff=jobs.constant, queue="slow", on_error=jobs.on_error,
        on_death=jobs.on_death, give_up_on=(KeyError,), succeed_on=(ValueError,), keep_dead=False,
    )  # fmt: skip
    job = goose.using(retry=retry).enqueue(jobs.say)

    assert {
        "max_retries": None,
        "backoff": "tests.acceptance.jobs:constant",
        "queue": "slow",
        "on_error": "tests.acceptance.jobs:on_error",
        "on_death": "tests.acceptance.jobs:on_death",
        "give_up_on": ["builtins:KeyError"],
        "succeed_on": ["builtins:ValueError"],
        "keep_dead": False,
    } == json.loads(json.dumps(job.retry))
    assert goose.using(retry=goose.Retry()).enqueue(jobs.say).retry is None


def test_a_policy_can_be_looked_at() -> None:
    """preview() lists the delays: as many as there are retries, growing, in seconds."""
    assert 25 == len(goose.Retry().preview())
    assert sorted(goose.Retry().preview()) == goose.Retry().preview()
    assert [] == goose.Retry(max_retries=0).preview()
    assert [1.0, 5.0, 5.0] == goose.Retry(
        max_retries=3, backoff=(1, timedelta(seconds=5))
    ).preview()
    assert [0.01, 0.02] == goose.Retry(max_retries=2, backoff=jobs.constant).preview()
    assert [3.0] == goose.Retry(max_retries=1, backoff=3).preview()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_retries": -1},
        {"max_retries": True},
        {"max_retries": 1.5},
        {"backoff": -1},
        {"backoff": ()},
        {"backoff": "soon"},
        {"queue": "a b"},
        {"give_up_on": ValueError},
        {"give_up_on": (5,)},
        {"on_error": 5},
        {"keep_dead": None},
    ],
)
def test_a_wrong_policy_is_refused_when_it_is_made(fields: dict[str, Any]) -> None:
    """The message names the field."""
    with pytest.raises(goose.ConfigError, match=next(iter(fields))):
        goose.Retry(**fields)


def test_a_policy_with_a_function_no_worker_finds_is_refused() -> None:
    """At enqueue at the latest, not in the worker."""
    with pytest.raises(goose.FunctionError, match="lambda"):
        goose.using(retry=goose.Retry(on_death=lambda *_: None)).enqueue(jobs.say)


# --- a broker that fails -----------------------------------------------------------------


def test_a_failed_enqueue_says_what_is_known_and_can_be_repeated(project: Path) -> None:
    """EnqueueError.jobs has every job; submit sends the same ids again, and none twice."""
    (project / "not.db").mkdir()
    broken = goose.using(broker=f"sqlite:///{project}/not.db")
    with pytest.raises(goose.EnqueueError, match=r"submit") as caught:
        broken.enqueue_many(jobs.say, [("a",), ("b",)])
    with pytest.raises(goose.EnqueueError) as later:
        broken.enqueue_in(3600, jobs.say)

    failed = caught.value.jobs
    assert {"not_stored", "unknown"} >= set(failed.values())
    assert 2 == len(failed)
    for _ in range(2):
        assert [job.id for job in failed] == [job.id for job in goose.submit(failed)]
    goose.submit(later.value.jobs)
    states = sorted(stored.state.value for stored in goose.using().inspector.find())
    assert ["ready", "ready", "scheduled"] == states


def test_nothing_is_logged_by_a_good_enqueue(caplog: pytest.LogCaptureFixture) -> None:
    """A library is quiet."""
    caplog.set_level(logging.DEBUG, logger="goose")
    goose.enqueue(jobs.say, "secret")

    assert "" == caplog.text


def test_an_enqueue_is_quick() -> None:
    """A lone call does not wait for company: a thousand in memory take far under a second or two."""
    began = time.monotonic()
    for _ in range(1000):
        goose.enqueue(jobs.say)

    assert time.monotonic() - began < 2.0
