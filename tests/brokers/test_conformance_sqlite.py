"""The SQLite broker keeps every promise of the suite, under turned clocks and under real ones."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from goose.brokers.base import Broker
from goose.brokers.sqlite import SQLiteBroker
from goose.testing import BrokerSuite


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class TestSQLiteBroker(BrokerSuite):
    """Under clocks that the tests turn, so that nothing is waited for."""

    lull = 0.01
    patience = 5.0

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """Each test's files are in its own folder."""
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())
        self.time = Clock()

    def make_broker(self) -> SQLiteBroker:
        return self.open_file(next(self.files))

    def open_file(self, path: Path | str, **options: object) -> SQLiteBroker:
        """Return a broker of that file under the test's clocks."""
        return SQLiteBroker(path, wall=self.time, uptime=self.time, **options)

    def reopen(self, broker: Broker) -> SQLiteBroker:
        return self.open_file(self.path(broker))

    def other_namespace(self, broker: Broker) -> SQLiteBroker:
        return self.open_file(self.path(broker), namespace="other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> SQLiteBroker:
        return self.open_file(
            next(self.files), dead_max_age=dead_max_age, dead_max_count=dead_max_count
        )

    def connection(self, broker: Broker) -> sqlite3.Connection:
        return sqlite3.connect(self.path(broker))

    def path(self, broker: Broker) -> str:
        """Return where *broker* keeps its jobs."""
        assert isinstance(broker, SQLiteBroker)
        return broker.options.path

    def advance(self, broker: Broker, seconds: float) -> None:
        self.time.now += seconds

    def clock(self) -> float:
        return self.time.now


class TestInRealTime(BrokerSuite):
    """By its URL, with the clocks of the machine; three lines are all it takes."""

    lull = 0.01
    ttl = 0.05
    delay = 0.1
    patience = 5.0

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """Each test's files are in its own folder."""
        self.urls = (f"sqlite:///{tmp_path}/{number}.db" for number in itertools.count())

    def make_broker(self) -> SQLiteBroker:
        return SQLiteBroker(next(self.urls))
