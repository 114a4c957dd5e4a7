"""Jobs for any broker that exist if and only if a database transaction commits."""

from goose.features.outbox.databases import Database
from goose.features.outbox.dialects import table_for
from goose.features.outbox.outbox import Outbox
from goose.features.outbox.relay import Relay
from goose.features.outbox.table import Figures, Table

__all__ = ["Database", "Figures", "Outbox", "Relay", "Table", "table_for"]
