"""Jobs made by the clock: entries in the store, fired by whatever worker comes first."""

from goose.features.crons.book import Crons
from goose.features.crons.entries import CatchUp, Cron

__all__ = ["CatchUp", "Cron", "Crons"]
