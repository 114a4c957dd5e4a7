"""Who is at work: every worker process keeps a record in the store while it lives.

A record is written now and then and gone by itself soon after its process is, so the list of
them is true within `TTL` seconds whatever happens to a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from goose.stores.base import Store

PREFIX = "control:worker:"
"""What the keys of all records begin with; the process's own id follows."""
TTL = 30.0
"""Seconds after which the record of a process that keeps silent is gone."""
EVERY = 10.0
"""Seconds between two writes, where nothing changes."""
PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker process, as it describes itself."""

    id: str
    """This process's own, never used again."""
    name: str
    """What orders call the worker, ``host:pid`` of its supervisor; its processes share it."""
    pid: int
    queues: Mapping[str, int]
    """What it takes from, with the weights; 0 everywhere is strict order."""
    paused: tuple[str, ...] = ()
    """Those of its queues that nothing is taken from."""
    concurrency: int
    async_concurrency: int
    processes: int | None = None
    """Processes its worker is to have; None where no supervisor takes orders for them."""
    log_level: str
    running: int
    """Jobs in its slots when it wrote this."""
    started_at: float
    """Epoch seconds by its own clock."""
    version: str

    @property
    def key(self) -> str:
        """Where the store has it."""
        return PREFIX + self.id


def dump(record: WorkerRecord) -> bytes:
    """Return *record* as the store keeps it."""
    return json.dumps(asdict(record), separators=(",", ":")).encode()


def parse(value: bytes) -> WorkerRecord | None:
    """Return the record in *value*; None for one that this version cannot read."""
    try:
        fields: dict[str, Any] = json.loads(value)
        names = WorkerRecord.__dataclass_fields__.keys() & fields.keys()
        known: dict[str, Any] = {name: fields[name] for name in names}
        known["paused"] = tuple(known["paused"])
        return WorkerRecord(**known)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def records(store: Store) -> Iterator[WorkerRecord]:
    """Yield every process at work, in no order that means anything."""
    after = ""
    while True:
        page = store.scan(PREFIX, limit=PAGE, after=after)
        for _, value in page:
            record = parse(value)
            if record is not None:
                yield record
        if len(page) < PAGE:
            return
        after = page[-1][0]
