"""``goose health``: what a probe learns from a heartbeat file, and how little that costs."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.acceptance.command import GOOSE, run


@pytest.mark.parametrize("ready", [False, True])
def test_health_reads_the_heartbeat_file(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    """Alive by the file's age, ready by what it says; the path may come from the environment."""
    from goose.cli.health import command as health
    from goose.worker.heartbeat import HeartbeatFile

    path = str(own_folder / "heartbeat")
    HeartbeatFile(path).step(0.0, ready=ready, why="" if ready else "starting")
    monkeypatch.setenv("GOOSE_HEARTBEAT_FILE", path)
    invoke = CliRunner().invoke

    assert 0 == invoke(health, [path], standalone_mode=False).return_value
    asked = invoke(health, ["--ready"], standalone_mode=False)
    assert (0 if ready else 1) == asked.return_value
    assert ("taking jobs" if ready else "starting") in asked.output
    assert 1 == invoke(health, [path + ".missing"], standalone_mode=False).return_value
    monkeypatch.delenv("GOOSE_HEARTBEAT_FILE")
    assert 2 == invoke(health, []).exit_code


def test_health_finds_the_file_as_the_settings_do(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """An argument comes before the environment, and that before the project's file, from anywhere in it."""
    from goose.worker.heartbeat import HeartbeatFile

    beat = own_folder / "beat"
    HeartbeatFile(str(beat)).step(0.0, ready=True, why="")
    project = own_folder / "pyproject.toml"
    project.write_text(f'[tool.goose]\nheartbeat_file = "{beat}"\nqueue = 5\n')
    (own_folder / "inner").mkdir()
    monkeypatch.chdir(own_folder / "inner")

    assert (0, "taking jobs\n") == (cli("health", "--ready").code, cli("health", "--ready").out)
    assert "named.missing" in cli("health", "named.missing").err
    monkeypatch.setenv("GOOSE_HEARTBEAT_FILE", "set.missing")
    assert "set.missing" in cli("health").err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("heartbeat_file = 5", "goose.toml: heartbeat_file = 5: give a text"),
        ("heartbeat_file = ", "goose.toml is not TOML"),
        ("queue = 'mail'", "name the heartbeat file, or set"),
    ],
)
def test_health_says_what_is_wrong_with_the_setting(
    own_folder: Path, cli: Any, content: str, said: str
) -> None:
    """A wrong path, a broken file and no path at all are told, with exit code 2."""
    (own_folder / "goose.toml").write_text(content)

    done = cli("health")

    assert 2 == done.code
    assert said in done.err


def test_health_imports_no_application_and_no_driver(own_folder: Path) -> None:
    """A probe that starts every few seconds costs no more than Python and its own few modules."""
    (own_folder / "goose.toml").write_text('heartbeat_file = "beat"\n')
    code = (
        "import json, sys\nimport goose.cli.health\nassert goose.cli.health._configured()\n"
        "print(json.dumps([m for m in sys.modules]))"
    )
    done = run(sys.executable, "-c", code, at=own_folder)
    loaded = set(json.loads(done.stdout))

    heavy = {"asyncio", "pydantic", "redis", "sqlite3", "prometheus_client", "http.server", "rich"}
    assert set() == loaded & heavy
    assert not [
        name for name in loaded if name.startswith(("goose.worker.runner", "goose.brokers.s"))
    ]


def test_health_is_quick(own_folder: Path) -> None:
    """A probe takes less than 150 ms of CPU from the start of Python to its end, the best of five."""
    from goose.worker.heartbeat import HeartbeatFile

    HeartbeatFile("heartbeat").step(0.0, ready=True, why="")
    (own_folder / "goose.toml").write_text('heartbeat_file = "heartbeat"\n')
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(own_folder / "compiled")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    taken: list[float] = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert 0 == run(GOOSE, "health", at=own_folder, env=env).returncode
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(taken) < 0.150
