"""What every test gets.

No test reads the developer's own settings or leaves a file behind: each runs in a folder
of its own, with no ``GOOSE_*`` variable set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.servers import programs
from tests.stopping import Stopped

ROOT = Path(__file__).parent.parent
# How long an example took says how busy the machine is; pytest's own limit finds those that hang.
hypothesis.settings.register_profile(
    "goose", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("goose")


def pytest_configure(config: pytest.Config) -> None:
    """Have all programs there before the first test, wherever it runs."""
    if not hasattr(config, "workerinput"):  # the one process that starts the others
        programs.install_missing()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first: files run side by side, and none should be waited for alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test printed fit to be sent: some print halves of surrogate pairs."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh current directory, outside of the project, and an environment without Goose."""
    for name in list(os.environ):
        if name.startswith("GOOSE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def importable(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own folder, on ``sys.path``; what was imported from it is forgotten after."""
    monkeypatch.syspath_prepend(own_folder)
    before = set(sys.modules)
    yield own_folder
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(own_folder) in str(getattr(module, "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """A function that waits for a condition, up to a deadline, and fails after it."""

    def wait(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"still not so after {seconds} s: {what or condition}")
            time.sleep(0.002)

    return wait


@pytest.fixture(params=["before", "within"])
def struck_start(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """Makes a call that is interrupted as it starts a thread: before that has begun, or after.

    One that has begun has ended when the function returns, as nobody wants it.
    """

    def call(do: Callable[[], object]) -> None:
        begun: list[threading.Thread] = []
        start = threading.Thread.start

        def struck(thread: threading.Thread) -> None:
            if request.param == "within":
                start(thread)
                begun.append(thread)
            raise Stopped

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", struck)
            with pytest.raises(Stopped):
                do()
        for thread in begun:
            thread.join(30)
            assert not thread.is_alive(), "nobody wants it"

    return call


@pytest.fixture
def root() -> Path:
    """The folder of the checkout."""
    return ROOT
