"""Type checkers see a user's mistakes, and only those."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "typing" / "sample.py"


@pytest.fixture
def mistakes() -> set[int]:
    """The numbers of the lines of the sample that are marked as mistakes."""
    lines = SAMPLE.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "  # mistake: " in line}


def test_the_sample_has_mistakes(mistakes: set[int]) -> None:
    """The marks are found, so that the tests below compare something."""
    assert len(mistakes) > 20


@pytest.mark.timeout(180)
def test_mypy_reports_exactly_the_mistakes(mistakes: set[int], root: Path, tmp_path: Path) -> None:
    """`mypy --strict` reports the marked lines of the sample and no other."""
    command = ["mypy", "--strict", "--output=json", "--config-file=", "--cache-dir", str(tmp_path)]
    done = run([*command, str(SAMPLE)], root)
    found = [json.loads(line) for line in done.splitlines()]

    assert mistakes == {each["line"] for each in found if each["severity"] == "error"}, done
    assert {SAMPLE.name} == {Path(each["file"]).name for each in found}


@pytest.mark.timeout(180)
def test_pyright_reports_exactly_the_mistakes(
    mistakes: set[int], root: Path, tmp_path: Path
) -> None:
    """Pyright reports the marked lines of the sample and no other."""
    shutil.copy(SAMPLE, tmp_path)
    config = tmp_path / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                "include": [SAMPLE.name],
                "extraPaths": [str(root)],
                "pythonVersion": "3.11",
                "typeCheckingMode": "strict",
            }
        )
    )
    done = run(
        ["pyright", "--outputjson", "--project", str(config), "--pythonpath", sys.executable], root
    )
    found = json.loads(done)["generalDiagnostics"]

    lines = {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}
    assert mistakes == lines, done


def run(command: list[str], folder: Path) -> str:
    """Return what a checker beside this Python prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.stdout, done.stderr
    return done.stdout
