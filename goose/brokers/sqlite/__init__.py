"""The embedded broker: jobs in one SQLite file, without a server."""

from goose.brokers.sqlite.broker import SQLiteBroker

__all__ = ["SQLiteBroker"]
