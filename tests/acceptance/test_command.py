"""``goose worker`` as users start it: exit codes, flags, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import goose
from tests.acceptance import jobs
from tests.acceptance.command import GOOSE, Worker, environment, run

pytestmark = pytest.mark.processes

JOBS = "tests.acceptance.jobs"
Start = Callable[..., Worker]


@pytest.fixture
def start(own_folder: Path) -> Iterator[Start]:
    """Starts a worker on ``goose.db`` in the test's folder."""
    started: list[Worker] = []

    def start(*arguments: str) -> Worker:
        worker = Worker(own_folder, *arguments, NOTES=str(own_folder / "notes"))
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def client(own_folder: Path) -> Iterator[goose.Client]:
    """A client of the same database."""
    with goose.Client(f"sqlite:///{own_folder}/goose.db") as made:
        yield made


def notes() -> list[str]:
    path = Path("notes")
    return path.read_text().splitlines() if path.exists() else []


def goose_cli(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run(GOOSE, *arguments, at=Path.cwd(), env=environment(**env))


# --- exit codes --------------------------------------------------------------------------


def test_terminated_gently_is_0_and_again_is_143(start: Start, client: goose.Client) -> None:
    """TERM drains: what runs may finish, and the exit code is 0; a second TERM ends at once."""
    client.enqueue(jobs.linger, 0.6)
    gentle = start(JOBS)
    gentle.until(lambda: notes() == ["lingering"], "a job runs")
    assert 0 == gentle.end(signal.SIGTERM)
    assert ["lingering", "lingered"] == notes()

    client.enqueue(jobs.linger, 40)
    hasty = start(JOBS)
    hasty.until(lambda: len(notes()) == 3, "a job runs")
    hasty.process.send_signal(signal.SIGTERM)
    hasty.says("stopping")
    began = time.monotonic()
    assert 143 == hasty.end(signal.SIGTERM)
    assert time.monotonic() - began < 5


def test_interrupted_gently_is_0_and_again_is_130(start: Start, client: goose.Client) -> None:
    """INT is the same, with its own code, also when a terminal sends it to every process."""
    drained = start(JOBS, "--processes", "2")
    client.enqueue(jobs.linger, 0.6)
    drained.until(notes, "a job runs")
    os.killpg(drained.process.pid, signal.SIGINT)
    assert 0 == drained.exit_code()
    assert ["lingering", "lingered"] == notes()

    client.enqueue(jobs.linger, 40)
    hasty = start(JOBS)
    hasty.until(lambda: len(notes()) == 3, "a job runs")
    hasty.process.send_signal(signal.SIGINT)
    hasty.says("stopping")
    assert 130 == hasty.end(signal.SIGINT)


def test_grace_bounds_a_stop(start: Start, client: goose.Client) -> None:
    """What outlives the grace is interrupted and given back, at no attempt; exit code 0."""
    sent = client.enqueue(jobs.linger, 40)
    worker = start(JOBS, "--grace", "200ms")
    worker.until(notes, "a job runs")
    began = time.monotonic()

    assert 0 == worker.end()
    assert time.monotonic() - began < 0.2 + 5
    (stored,) = client.inspector.find()
    assert ("ready", sent) == (stored.state.value, stored.job)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name at least one module"),
        (["x", "--nonsense"], "--nonsense"),
        (["x", "--concurrency", "none"], "--concurrency = 'none': give a whole number"),
        (["x", "--grace", "soon"], "--grace = 'soon': give seconds, or a text such as"),
        (["x", "--queues", "a b"], "'a b' cannot name a queue"),
        (["x", "--queues", "a=1,b"], "--queues = 'a=1,b': give every queue a weight"),
        (["x", "--broker", "goose.db"], "--broker = 'goose.db': give a URL"),
        (["x", "--broker", "sqlit:///x"], "did you mean sqlite://"),
        (["x", "--broker", "memory://"], "inside one process"),
        (["json", "--metrics", "statd://x"], "did you mean 'statsd'"),
        (["json", "--middleware", "nope"], "not module:name"),
        (["json", "--log-level", "loud"], "--log-level = 'loud'"),
    ],
)
def test_a_wrong_setting_is_2(arguments: list[str], says: str) -> None:
    """Usage and settings: one clear message, no traceback."""
    done = goose_cli("worker", *arguments)

    assert (2, True) == (done.returncode, says in done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_for_a_module_is_3_with_what_was_meant() -> None:
    """A common slip: the file's name instead of the module's."""
    done = goose_cli("worker", "app/tasks.py")

    assert (3, True) == (done.returncode, "did you mean 'app.tasks'" in done.stderr)


def test_wrong_settings_of_file_and_environment_are_2(own_folder: Path) -> None:
    """The message names the file or variable."""
    done = goose_cli("worker", "json", GOOSE_CONCURENCY="4")
    assert (2, True) == (done.returncode, "did you mean GOOSE_CONCURRENCY" in done.stderr)

    (own_folder / "goose.toml").write_text("concurrency = 'many'")
    done = goose_cli("worker", "json")
    assert (2, True) == (done.returncode, f"{own_folder}/goose.toml: concurrency" in done.stderr)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "there is no module broken"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(7)", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_3(
    own_folder: Path, source: str | None, says: str
) -> None:
    """Missing or failing: the module and the cause are named."""
    if source is not None:
        (own_folder / "broken.py").write_text(source)
    done = goose_cli("worker", "broken")

    assert (3, True) == (done.returncode, says in done.stderr), done.stderr
    assert "cannot import broken" in done.stderr
    assert 1 == done.stderr.count("cannot import broken"), done.stderr


def test_a_broker_that_cannot_be_had_is_4(own_folder: Path) -> None:
    """A file that is no database, a folder, a place that is not there: after --wait-broker."""
    (own_folder / "text.db").write_text("this is not a database, and long enough to tell" * 100)
    (own_folder / "folder.db").mkdir()
    urls = ["sqlite:///text.db", "sqlite:///folder.db", "sqlite:////proc/nowhere/x.db"]
    begun = [
        subprocess.Popen(
            [GOOSE, "worker", JOBS, "--broker", url, "--wait-broker", "1"],
            env=environment(), stderr=subprocess.PIPE, text=True,
        )
        for url in urls
    ]  # fmt: skip
    ended = [(process.communicate(timeout=30)[1], process.returncode) for process in begun]

    assert [4, 4, 4] == [code for _, code in ended], ended
    for url, (said, _) in zip(urls, ended, strict=True):
        assert Path(url.removeprefix("sqlite:///")).name in said
        assert "Traceback" not in said


# --- flags -------------------------------------------------------------------------------


def test_the_banner_shows_the_absolute_path(start: Start, client: goose.Client) -> None:
    """Where the jobs are, which queues, which modules; relative URLs too, secrets never."""
    worker = start(JOBS, "--until-empty", "--broker", "sqlite:///goose.db", "--queues", "a=3,b=1")

    assert 0 == worker.exit_code()
    assert f"sqlite:///{Path.cwd()}/goose.db" in worker.log
    assert "a=3, b=1" in worker.log
    assert JOBS in worker.log


def test_queues_in_strict_order_and_only_those(start: Start, client: goose.Client) -> None:
    """--queues a,b takes a first and leaves others alone; --until-empty looks at those."""
    for queue in ("other", "b", "a"):
        client.using(queue=queue).enqueue_many(jobs.say, [(queue,)] * 3)
    worker = start(JOBS, "--queues", "a,b", "--concurrency", "1", "--until-empty")

    assert 0 == worker.exit_code()
    assert ["a"] * 3 + ["b"] * 3 == notes()
    assert ["other"] == [stats.queue for stats in client.inspector.queues()]


def test_until_empty_runs_retries_that_are_due_and_leaves_the_scheduled(
    start: Start, client: goose.Client
) -> None:
    """It ends when nothing is ready or running; what is scheduled stays."""
    client.enqueue_in(3600, jobs.say, "later")
    client.enqueue(jobs.say_async, "async")
    client.using(retry=goose.Retry(backoff=0, max_retries=2)).enqueue(jobs.fail)
    worker = start(JOBS, "--until-empty", "--processes", "2")

    assert 0 == worker.exit_code()
    assert ["async", "failing", "failing", "failing"] == sorted(notes())
    states = sorted(stored.state.value for stored in client.inspector.find())
    assert ["dead", "scheduled"] == states


def test_max_jobs_replaces_the_process(start: Start, client: goose.Client) -> None:
    """A process that has run its share is replaced by another; nothing is lost."""
    client.enqueue_many(jobs.process, [(0.05,)] * 12)
    worker = start(JOBS, "--max-jobs", "3", "--concurrency", "1", "--until-empty")

    assert 0 == worker.exit_code()
    assert 12 == len(notes())
    assert len(set(notes())) > 1
    assert "max-jobs 3" in worker.log


def test_a_hard_timeout_ends_what_nothing_else_can(start: Start, client: goose.Client) -> None:
    """The process is replaced; the job has an attempt with the reason; others are not charged."""
    stuck = client.using(retry=goose.Retry(max_retries=0)).enqueue(jobs.spin)
    worker = start(JOBS, "--hard-timeout", "1s", "--until-empty")
    worker.until(lambda: notes() == ["spinning"], "the job runs")
    client.enqueue(jobs.say, "innocent")

    assert 0 == worker.exit_code()
    assert ["spinning", "innocent"] == notes()
    (stored,) = client.inspector.find()
    assert stored.job is not None
    failure = stored.job.failure
    assert failure is not None
    assert (stuck.id, "dead", 1, "timeout") == (
        stored.job.id, stored.state.value, stored.job.attempt, failure.reason,
    )  # fmt: skip


APP = "import os\n\ndef version() -> None:\n    print('version {n}', os.getpid(), flush=True)\n"


def test_reload_runs_the_new_code(own_folder: Path, start: Start, client: goose.Client) -> None:
    """A change of the source replaces the processes; the current folder is importable."""
    source = own_folder / "reloaded_app.py"
    source.write_text(APP.format(n=1))
    job = goose.Job("1", "reloaded_app:version", enqueued_at=time.time())
    client.submit([job])
    worker = start("reloaded_app", "--reload")
    worker.says("version 1")
    source.write_text(APP.format(n=2))
    worker.says("has changed")
    client.submit([job.evolve(id="2")])
    worker.says("version 2")

    assert 0 == worker.end()


def test_json_logs_are_one_object_a_line(start: Start, client: goose.Client) -> None:
    """Every line parses, has time, level and message, and the running job where there is one."""
    job = client.using(retry=goose.Retry(max_retries=0)).enqueue(jobs.fail, "secret word")
    worker = start(JOBS, "--log-format", "json", "--log-level", "debug", "--until-empty")
    assert 0 == worker.exit_code()

    lines = [json.loads(line) for line in worker.log.splitlines()]
    for line in lines:
        assert {"at", "level", "logger", "process", "pid", "message"} <= set(line)
    about = [line for line in lines if line.get("job_id") == job.id]
    assert {f"{JOBS}:fail"} == {line["function"] for line in about}
    assert any(line["level"] == "error" and "exception" in line for line in about)


def test_what_no_flag_says_comes_from_the_configuration(
    own_folder: Path, start: Start, client: goose.Client
) -> None:
    """Modules, queues and processes of goose.toml; a flag wins over it."""
    (own_folder / "goose.toml").write_text(
        f'allow = ["{JOBS}"]\nqueues = ["a"]\nprocesses = 2\nlog_format = "json"\n'
    )
    client.using(queue="a").enqueue(jobs.say, "a")
    client.using(queue="b").enqueue(jobs.say, "b")

    assert 0 == start("--until-empty").exit_code()
    assert ["a"] == notes()
    flagged = start("--until-empty", "--queues", "b", "--log-format", "text")
    assert 0 == flagged.exit_code()
    assert ["a", "b"] == notes()
    assert "2 processes" in flagged.log


def test_no_job_is_lost_when_workers_are_killed(start: Start, client: goose.Client) -> None:
    """A whole worker killed with SIGKILL: another recovers what it held."""
    client.enqueue_many(jobs.linger, [(0.3,)] * 12)
    doomed = start(JOBS, "--concurrency", "4")
    doomed.until(lambda: len(notes()) >= 4, "jobs run")
    doomed.process.kill()
    doomed.process.wait()

    second = start(JOBS, "--concurrency", "12")
    second.until(lambda: not list(client.inspector.find()), "every job is done")
    assert 12 <= notes().count("lingered") <= 16
    assert 0 == second.end()


# --- the command itself ------------------------------------------------------------------


def test_goose_is_a_module_and_has_a_version() -> None:
    """`python -m goose` is `goose`; both know the version."""
    expected = f"goose {goose.__version__}\n"

    assert expected == goose_cli("--version").stdout
    assert expected == run(sys.executable, "-m", "goose", "--version", at=Path.cwd()).stdout


def test_version_and_import_are_quick() -> None:
    """300 ms and 150 ms are the targets; the best of five may be three times that on a busy machine."""

    def cpu(*command: str) -> float:
        before = os.times()
        run(*command, at=Path.cwd())
        after = os.times()
        return (after.children_user + after.children_system) - (
            before.children_user + before.children_system
        )

    assert min(cpu(GOOSE, "--version") for _ in range(5)) < 3 * 0.3
    bare = min(cpu(sys.executable, "-c", "pass") for _ in range(3))
    assert min(cpu(sys.executable, "-c", "import goose") for _ in range(5)) - bare < 3 * 0.15


@pytest.mark.parametrize("command", [[], ["worker"], ["jobs"], ["queues"]])
def test_every_command_has_help(command: list[str]) -> None:
    """--help and -h print what it does, to standard output, with code 0."""
    long, short = goose_cli(*command, "--help"), goose_cli(*command, "-h")

    assert (0, 0) == (long.returncode, short.returncode)
    assert long.stdout == short.stdout
    assert long.stdout.startswith("Usage: goose")


def test_a_misspelt_command_is_2_with_the_nearest() -> None:
    """As everywhere."""
    done = goose_cli("wroker")

    assert (2, True) == (done.returncode, "did you mean 'worker'" in done.stderr)


def test_the_database_is_in_wal_mode(client: goose.Client) -> None:
    """As durable as SQLite can be told to be, and readable while written."""
    client.enqueue(jobs.say)
    with sqlite3.connect("goose.db") as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()

    assert "wal" == mode
    assert re.fullmatch(r"[0-9a-f-]{36}", next(iter(client.inspector.find())).id)
