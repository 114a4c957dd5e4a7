"""The circuit of a queue: a pure value and a machine without a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from goose.circuits import Circuit, Line, parse
from goose.errors import ConfigError
from goose.settings import load


def fail(line: Line, times: int, now: float = 0.0) -> list[str | None]:
    """Have so many jobs fail."""
    return [line.ended(number, now, failed=True) for number in range(times)]


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """A success in between begins the count anew; what ended without telling does not."""
    line = Line(Circuit(failures=3))

    assert [None, None] == fail(line, 2)
    assert None is line.ended("x", 0.0, failed=False)
    assert [None, None] == fail(line, 2)
    assert None is line.ended("x", 0.0, failed=None)
    assert ["opened"] == fail(line, 1)
    assert line.is_open


def test_one_is_tried_after_the_pause_and_decides() -> None:
    """The pause doubles with each probe that fails, up to the longest; one that ends well closes it."""
    line = Line(Circuit(failures=1, pause=10, longest=25))
    fail(line, 1)
    for now, pause in ((10.0, 20.0), (30.0, 25.0), (55.0, 25.0)):
        assert not line.wants_probe(now - 0.1)
        assert line.wants_probe(now)
        line.tried("probe")
        assert not line.wants_probe(now)
        assert "opened" == line.ended("probe", now, failed=True)
        assert now + pause == line.until
    line.tried("probe")

    assert "closed" == line.ended("probe", 80.0, failed=False)
    assert not line.is_open
    assert [None, "opened"] == fail(Line(Circuit(failures=2)), 2)


def test_only_the_probe_proves_anything_while_it_is_open() -> None:
    """Jobs that were under way when it opened change nothing; a probe that ends untold is repeated."""
    line = Line(Circuit(failures=1, pause=10))
    fail(line, 1)

    assert None is line.ended("late", 1.0, failed=False)
    assert None is line.ended("late", 1.0, failed=True)
    line.tried("probe")
    assert None is line.ended("late", 11.0, failed=False)
    assert None is line.ended("probe", 11.0, failed=None)
    assert line.wants_probe(11.0)


def test_how_it_is_written(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table or a number in the file, JSON in the environment; nonsense is named."""
    (own_folder / "goose.toml").write_text(
        '[circuit]\nreports = 3\n[circuit.mail]\nfailures = 2\npause = "5s"\nlongest = "1m"\n'
    )
    expected = {
        "reports": Circuit(failures=3),
        "mail": Circuit(failures=2, pause=5.0, longest=60.0),
    }
    assert expected == load().circuit
    monkeypatch.setenv("GOOSE_CIRCUIT", '{"mail": 7}')
    assert {"mail": Circuit(failures=7)} == load().circuit
    assert Circuit(pause=1000.0, longest=1000.0) == parse({"pause": "1000s"})
    for value, words in (
        ('{"mail": 0}', "mail: give a whole number"),
        ('{"mail": {"pauses": 1}}', "did you mean 'pause'"),
        ('{"mail": {"pause": 9, "longest": 1}}', "less than pause"),
        ('{"no queue": 1}', "cannot name a queue"),
        ("mail", "give JSON"),
    ):
        monkeypatch.setenv("GOOSE_CIRCUIT", value)
        with pytest.raises(ConfigError, match=words):
            load()
