"""What a worker process is running, readable after its death.

`Notes` is a small table in memory that two processes share: a child writes into it which
jobs it runs, its supervisor reads it, above all when the child has died and somebody must
be blamed. It costs no system call and no broker write: a started job is one copy of some
200 bytes, an ended one a single byte.

The table is a header (magic, number of slots, tick, contact with the broker) and one record per slot: a state byte,
the hard deadline, and the job's id. A job is noted by writing deadline and id first and the
state byte last; its end changes the state byte alone, so that the last job of a slot can
still be named. So a record whose state byte says that it runs is whole. The reader copies a
record twice and believes it when both copies agree, so that it never takes half of one job
and half of the next for a running job.

Each slot has one writer at a time; different slots may be written by different threads.
Instants are those of ``time.monotonic()``, which on one machine is the same clock in every
process. Where the id is longer than `ID_BYTES` its beginning stands for it: compare with
`shorten`.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import tempfile
from dataclasses import dataclass

ID_BYTES = 200
"""Bytes of an id that are kept; far more than a UUID needs."""

_MAGIC = 0x676F6F73
_HEADER = struct.Struct("@II8xdd")  # magic, slots, tick, contact
_COUNT = struct.Struct("@I")
_COUNT_AT = 4
_TICK = struct.Struct("@d")
_TICK_AT = 16
_CONTACT_AT = 24
_FACTS = struct.Struct(f"@d{ID_BYTES + 1}p")  # hard deadline, id with its length
_STATE_AT = 8 + ID_BYTES + 1  # the state byte follows the facts
_RECORD = 216  # bytes per slot, a multiple of 8
_RUNS, _ENDED, _CHANGING = 1, 2, 3  # states; 0 was never used


@dataclass(frozen=True, slots=True)
class Running:
    """A job that is noted as running."""

    job_id: str
    """Its id, as `shorten` gives it."""
    hard_deadline_mono: float
    """When the supervisor ends the process because of it; infinity if never."""


def shorten(job_id: str) -> str:
    """Return *job_id* as the notes keep it: at most `ID_BYTES` bytes of UTF-8."""
    return job_id.encode("utf-8", "replace")[:ID_BYTES].decode("utf-8", "replace")


class Notes:
    """The shared table; made by `create` in the supervisor and by `attach` in the child."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        magic, slots, _, _ = _HEADER.unpack_from(self._map)
        if magic != _MAGIC or len(self._map) < _size(slots):
            self._map.close()
            raise ValueError(f"file descriptor {fd} holds no notes")

    @classmethod
    def create(cls, slots: int, spare: int = 0) -> Notes:
        """Return a new, empty table for *slots* jobs at once (at least 1), and *spare* more later.

        What is spare takes no memory until it is used.
        """
        fd = _memory_file()
        os.ftruncate(fd, _size(slots + spare))
        os.pwrite(fd, _HEADER.pack(_MAGIC, slots, -math.inf, -math.inf), 0)
        return cls(fd)

    @classmethod
    def attach(cls, fd: int) -> Notes:
        """Return the table behind an inherited file descriptor, which it then owns.

        Raises:
            ValueError: There is none.
        """
        return cls(fd)

    def fileno(self) -> int:
        """Return the file descriptor to inherit."""
        return self._fd

    def close(self) -> None:
        """Let go of the memory and the file descriptor."""
        self._map.close()
        os.close(self._fd)

    @property
    def slots(self) -> int:
        """Jobs at once."""
        slots: int = _COUNT.unpack_from(self._map, _COUNT_AT)[0]
        return slots

    # The child's side.

    def grow(self, slots: int) -> bool:
        """Have room for *slots* jobs at once from now on; say whether there is so much."""
        if len(self._map) < _size(slots):
            return False
        if slots > self.slots:
            _COUNT.pack_into(self._map, _COUNT_AT, slots)
        return True

    def started(self, slot: int, job_id: str, hard_deadline_mono: float = math.inf) -> None:
        """Note that *slot* runs this job from now on."""
        at = _HEADER.size + slot * _RECORD
        self._map[at + _STATE_AT] = _CHANGING
        _FACTS.pack_into(self._map, at, hard_deadline_mono, job_id.encode("utf-8", "replace"))
        self._map[at + _STATE_AT] = _RUNS

    def ended(self, slot: int) -> None:
        """Note that *slot* runs nothing any more."""
        self._map[_HEADER.size + slot * _RECORD + _STATE_AT] = _ENDED

    def tick(self, mono: float) -> None:
        """Note that the child's engine was alive at *mono*."""
        _TICK.pack_into(self._map, _TICK_AT, mono)

    def contact(self, mono: float) -> None:
        """Note that the broker answered the child at *mono*."""
        _TICK.pack_into(self._map, _CONTACT_AT, mono)

    # The supervisor's side.

    @property
    def last_tick(self) -> float:
        """The last `tick`; minus infinity before the first."""
        tick: float = _TICK.unpack_from(self._map, _TICK_AT)[0]
        return tick

    @property
    def last_contact(self) -> float:
        """The last `contact`; minus infinity before the first."""
        contact: float = _TICK.unpack_from(self._map, _CONTACT_AT)[0]
        return contact

    def running(self) -> list[Running]:
        """Return what runs now, or ran when the child died."""
        return self._all(_RUNS)

    def ended_last(self) -> list[str]:
        """Return the last job of each slot that runs nothing, as `shorten` gives the id."""
        return [job.job_id for job in self._all(_ENDED)]

    def _all(self, state: int) -> list[Running]:
        found = (self._read(slot, state) for slot in range(self.slots))
        return [job for job in found if job is not None]

    def _read(self, slot: int, state: int) -> Running | None:
        at = _HEADER.size + slot * _RECORD
        while True:
            record = self._map[at : at + _RECORD]
            if record[_STATE_AT] != state:
                return None
            if record == self._map[at : at + _RECORD]:
                deadline, identity = _FACTS.unpack_from(record)
                return Running(identity.decode("utf-8", "replace"), deadline)


def _size(slots: int) -> int:
    return _HEADER.size + slots * _RECORD


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("goose-notes")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
