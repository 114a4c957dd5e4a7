"""Orders to live workers: what they pause, how they work, which jobs they end."""

from goose.features.controls.book import Controls
from goose.features.controls.orders import Orders
from goose.features.controls.roll import WorkerRecord

__all__ = ["Controls", "Orders", "WorkerRecord"]
