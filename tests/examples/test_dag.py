"""The example pipeline, as its docstring says to run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.acceptance.command import GOOSE, environment, run

pytestmark = pytest.mark.processes


def test_the_pipeline_of_the_example(own_folder: Path, root: Path) -> None:
    """Each page goes through every step that is meant for it, once, and nothing is left over."""
    env = environment(PYTHONPATH=f"{root}:{root}/examples")
    first = run(sys.executable, "-m", "dag", at=own_folder, env=env)
    assert 0 == first.returncode, first.stderr
    command = (GOOSE, "worker", "dag", "--middleware", "dag:pipeline", "--until-empty")
    done = run(*command, at=own_folder, env=env)

    assert 0 == done.returncode, done.stderr
    lines = sorted((own_folder / "report.txt").read_text().splitlines())
    assert ["https://example.com/a 6", "https://example.com/b 2"] == lines
    shown = run(GOOSE, "queues", "--json", at=own_folder, env=env)
    assert "[]" == shown.stdout.strip()
