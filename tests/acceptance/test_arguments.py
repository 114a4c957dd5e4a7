"""Arguments of every type go through the file of a broker and a real worker, and come back.

All cases are enqueued first, then one worker started from the command line runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import goose
from tests.acceptance import matrix
from tests.acceptance.command import GOOSE, environment, run

pytestmark = pytest.mark.processes

Pictures = dict[str, str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pictures]:
    """What each case's function got, as the worker wrote it down."""
    folder = tmp_path_factory.mktemp("arguments")
    noted = folder / "noted"
    noted.mkdir()
    with goose.Client(f"sqlite:///{folder}/jobs.db") as client:
        jobs = {
            name: client.enqueue(fn, *args, **kwargs)
            for name, (fn, args, kwargs, _) in matrix.CASES.items()
        }
    command = [
        GOOSE,
        "worker",
        "tests.acceptance.matrix",
        "--broker",
        f"sqlite:///{folder}/jobs.db",
    ]
    done = run(*command, "--until-empty", at=folder, env=environment(PICTURES=str(noted)))
    assert 0 == done.returncode, done.stderr

    def noted_for(job: goose.Job[object]) -> str:
        path = noted / job.id
        return path.read_text() if path.exists() else f"nothing; the worker said\n{done.stderr}"

    yield {name: noted_for(job) for name, job in jobs.items()}
    assert not Path(folder / "goose.db").exists()


@pytest.mark.parametrize("case", matrix.CASES)
def test_what_is_sent_is_what_the_function_gets(case: str, pictures: Pictures) -> None:
    """Equal in type and value, at every level."""
    expected = matrix.CASES[case][3]

    assert matrix.picture((expected, {})) == pictures[case]
