"""The SQLite broker keeps every promise of the suite, under turned clocks and under real ones."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Broker
from goose.brokers.sqlite import SQLiteBroker
from goose.testing import BrokerSuite


class TestInRealTime(BrokerSuite):
    """By its URL, with the clocks of the machine."""

    lull = 0.01
    ttl = 0.05
    delay = 0.1
    patience = 5.0

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """Each test's files are in its own folder."""
        self.files = (tmp_path / f"{number}.db" for number in itertools.count())

    def open_file(self, path: Path | str, **options: Any) -> SQLiteBroker:
        """Return a broker of that file."""
        return SQLiteBroker(f"sqlite:///{path}", **options)

    def make_broker(self) -> SQLiteBroker:
        return self.open_file(next(self.files))

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


class TestUnderTurnedClocks(TestInRealTime):
    """By its path, under clocks that the tests turn, and with little waiting for the disk."""

    ttl = 0.3
    delay = 0.3

    @pytest.fixture(autouse=True)
    def noon(self) -> None:
        """Each test begins at the same instant."""
        self.now = 1_000_000.0

    def open_file(self, path: Path | str, **options: Any) -> SQLiteBroker:
        return SQLiteBroker(
            path, wall=self.clock, uptime=self.clock, synchronous="normal", **options
        )

    def advance(self, broker: Broker, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now
