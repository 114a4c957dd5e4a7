"""Metrics backends by URL and by name."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from goose.errors import ConfigError, MissingDriver
from goose.metrics import connect
from goose.metrics.base import Tags
from goose.metrics.statsd import StatsD


class Own:
    def increment(self, name: str, value: int, tags: Tags) -> None: ...

    def gauge(self, name: str, value: float, tags: Tags) -> None: ...

    def timing(self, name: str, seconds: float, tags: Tags) -> None: ...


class NeedsMore(Own):
    def __init__(self, more: int) -> None: ...


class Incomplete:
    def increment(self, name: str, value: int, tags: Tags) -> None: ...


own = Own()
incomplete = Incomplete()


def factory() -> Own:
    return own


def test_a_backend_is_itself() -> None:
    """What is not text is checked and returned."""
    assert own is connect(own)


@pytest.mark.parametrize("name", ["own", "factory"])
def test_objects_and_factories_are_found_by_name(name: str) -> None:
    """module:name may be a backend or a function that makes one."""
    assert own is connect(f"{__name__}:{name}")


def test_a_class_is_found_by_name() -> None:
    """module:name may be a class; it is instantiated."""
    assert isinstance(connect(f"{__name__}:Own"), Own)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("statds://h", r"did you mean 'statsd'\?; there are: .*prometheus.*statsd"),
        ("statsd", "is not module:name"),
        ("no.such:x", r"'no.such' cannot be imported \(ModuleNotFoundError"),
        (f"{__name__}:own_", "did you mean 'own'"),
        (f"{__name__}:incomplete", "it has no gauge, timing"),
        (f"{__name__}:NeedsMore", "cannot be made without arguments"),
        (Own, "pass an instance"),
    ],
)
def test_a_wrong_spec_is_refused(spec: object, says: str) -> None:
    """Each mistake is a ConfigError that names the value and the fix."""
    with pytest.raises(ConfigError, match=says):
        connect(spec)  # type: ignore[arg-type]


def test_a_module_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a module's own code is in the message and the cause."""
    (tmp_path / "broken_metrics.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match=r"\(ZeroDivisionError: division by zero\)") as caught:
        connect("broken_metrics:metrics")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.fixture
def _no_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "goose.metrics.prometheus", raising=False)
    yield
    sys.modules.pop("goose.metrics.prometheus", None)


@pytest.mark.usefixtures("_no_prometheus_client")
def test_a_missing_driver_names_the_pip_line() -> None:
    """Without prometheus-client the URL is refused with the line that installs it."""
    with pytest.raises(MissingDriver, match=r'pip install "goose-jobs\[prometheus\]"'):
        connect("prometheus://:9191")


def test_a_plugin_with_a_missing_package_names_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For somebody else's scheme the pip line has their distribution."""

    class Point:
        name = "theirs"
        dist = type("Dist", (), {"name": "goose-theirs"})

        def load(self) -> object:
            raise ModuleNotFoundError("No module named 'driver'")

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point()])
    with pytest.raises(MissingDriver, match=r'No module named .driver.*pip install "goose-theirs"'):
        connect("theirs://h")


def test_the_module_of_a_backend_is_imported_when_asked_for() -> None:
    """connect gives the class that its own module defines."""
    assert type(connect("statsd://")) is StatsD
