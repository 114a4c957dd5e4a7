"""The command line's frame, and what ``goose worker`` makes of flags, environment and files."""

from __future__ import annotations

import contextvars
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import goose
from goose.brokers.base import Share
from goose.cli import COMMANDS, group
from goose.cli import worker as worker_module
from goose.settings import Settings
from goose.worker import logs


class Started:
    """Stands in for the supervisor and remembers what it was told."""

    def __init__(self) -> None:
        self.chosen: Settings | None = None
        self.how: dict[str, Any] = {}

    def __call__(self, chosen: Settings, **how: Any) -> int:
        self.chosen, self.how = chosen, how
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """The supervisor's stand-in, in an empty directory."""
    made = Started()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker_module.host, "run", made)
    monkeypatch.setattr(worker_module.logs, "set_up", lambda *_: None)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["worker", *arguments])


def test_flags_reach_the_supervisor(started: Started) -> None:
    """Each flag is a setting, parsed as everywhere."""
    result = run(
        "app.tasks", "app.more", "--queues", "mail=6,default=3", "--concurrency", "4",
        "--async-concurrency", "7", "--processes", "2", "--grace", "5s", "--ttl", "1m",
        "--hard-timeout", "1h", "--max-jobs", "1000", "--max-rss", "500MB", "--until-empty",
        "--reload", "--wait-broker", "300ms", "--middleware", "app:one", "--middleware", "app:two",
        "--metrics", "statsd://localhost:8125", "--resources", "app:pool", "--log-format", "json",
        "--log-level", "debug", "--broker", "sqlite:///x.db",
    )  # fmt: skip

    assert 0 == result.exit_code, result.output
    chosen = started.chosen
    assert chosen is not None
    assert ("app.tasks", "app.more") == chosen.allow
    assert (Share("mail", 6), Share("default", 3)) == chosen.queues
    assert (4, 7, 2) == (chosen.concurrency, chosen.async_concurrency, chosen.processes)
    assert (5.0, 60.0, 3600.0, 0.3) == (
        chosen.grace, chosen.ttl, chosen.hard_timeout, chosen.wait_broker,
    )  # fmt: skip
    assert chosen.max_jobs == 1000
    assert chosen.max_rss is not None
    assert 500_000_000 <= chosen.max_rss <= 500 * 1024**2
    assert ("app:one", "app:two") == chosen.middleware
    assert (("statsd://localhost:8125",), ("app:pool",)) == (chosen.metrics, chosen.resources)
    assert ("json", "debug", "sqlite:///x.db") == (
        chosen.log_format, chosen.log_level, chosen.broker,
    )  # fmt: skip
    assert {"until_empty": True, "reload": True} == started.how


def test_a_flag_beats_the_environment_and_that_the_file(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Field by field, the nearest word counts."""
    (tmp_path / "goose.toml").write_text(
        'allow = ["app.tasks"]\nconcurrency = 1\nprocesses = 2\ngrace = "3s"\n'
    )
    monkeypatch.setenv("GOOSE_CONCURRENCY", "5")
    monkeypatch.setenv("GOOSE_PROCESSES", "6")
    result = run("--concurrency", "9")

    assert 0 == result.exit_code, result.output
    chosen = started.chosen
    assert chosen is not None
    assert (9, 6, 3.0) == (chosen.concurrency, chosen.processes, chosen.grace)
    assert ("app.tasks",) == chosen.allow


def test_without_modules_there_is_help(started: Started) -> None:
    """Exit code 2, and an example of what is missing."""
    result = run()

    assert 2 == result.exit_code
    assert "goose worker app.tasks" in result.output
    assert started.chosen is None


def test_the_banner_shows_where_the_jobs_are(started: Started, tmp_path: Path) -> None:
    """The default database by its absolute path, queues, modules and how much at once."""
    result = run("app.tasks", "--queues", "mail,default", "--processes", "2")

    assert f"sqlite:///{tmp_path}/goose.db" in result.output
    for shown in (goose.__version__, "mail, default", "app.tasks", "2 processes", "10 sync"):
        assert shown in result.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:hunter2@host/0", "redis://me:***@host/0"),
        ("sqlite:///x.db?synchronous=normal", "/x.db?synchronous=normal"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
    ],
)
def test_the_banner_hides_secrets(started: Started, url: str, shown: str) -> None:
    """Passwords stay out of terminals and logs."""
    result = run("app.tasks", "--broker", url)

    assert shown in result.output
    assert "hunter2" not in result.output


def test_the_help_needs_no_command() -> None:
    """All commands are listed, none is imported."""
    code = (
        "import sys; from goose.cli import group; group(['--help'], standalone_mode=False); "
        "print([name for name in sys.modules if name.startswith('goose.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.splitlines()[-1]
    for name in COMMANDS:
        assert name in done.stdout


def test_the_version_needs_no_worker() -> None:
    """It is shown without the engine, pydantic or a broker."""
    code = (
        "import sys; from goose.cli import group; group(['--version'], standalone_mode=False); "
        "print(sorted({'pydantic', 'sqlite3', 'asyncio', 'goose.worker'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [f"goose {goose.__version__}", "[]"] == done.stdout.splitlines()


def test_an_unknown_command_names_the_nearest() -> None:
    """Exit code 2, and a guess."""
    result = CliRunner().invoke(group, ["wroker"])

    assert 2 == result.exit_code
    assert "did you mean 'worker'?" in result.output


# --- logging ---------------------------------------------------------------------------------


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """Standard error, with logging put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def read() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield read
    root.handlers[:], root.level = before


def test_a_text_line_names_process_and_job(lines: Any) -> None:
    """The job's id is added unless the message has it."""
    logs.set_up("info", "text", "worker-1")
    logging.getLogger("goose.x").info("done", extra={"job_id": "abc"})
    logging.getLogger("goose.x").info("abc is done", extra={"job_id": "abc"})
    logging.getLogger("goose.x").debug("not shown")

    first, second = lines()
    assert first.endswith("worker-1 goose.x: done [job abc]")
    assert second.endswith("worker-1 goose.x: abc is done")


def test_a_json_line_has_all_fields(lines: Any) -> None:
    """Extras, the traceback, and nothing of a job outside one."""
    logs.set_up("info", "json", "worker-1")

    def fail() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            logging.getLogger("goose.x").exception("failed\nbadly", extra={"tenant": {"a": object}})

    contextvars.Context().run(fail)  # whatever job the thread's own context may know of

    [line] = lines()
    record = json.loads(line)
    assert ("error", "goose.x", "worker-1", "failed\nbadly") == (
        record["level"], record["logger"], record["process"], record["message"],
    )  # fmt: skip
    assert record["exception"].endswith("ValueError: no")
    assert "tenant" in record
    assert "job_id" not in record
