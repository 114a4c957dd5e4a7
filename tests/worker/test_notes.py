"""The notes of what runs, shared between two processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator

import pytest

from goose.worker.notes import ID_BYTES, Notes, Running, shorten


@pytest.fixture
def notes() -> Iterator[Notes]:
    """A table of four slots."""
    made = Notes.create(4)
    yield made
    made.close()


def test_a_new_table_is_empty(notes: Notes) -> None:
    """Nothing runs, and there was no tick."""
    assert [] == notes.running()
    assert -math.inf == notes.last_tick
    assert 4 == notes.slots


def test_started_jobs_are_seen_through_the_file_descriptor(notes: Notes) -> None:
    """Whoever holds the descriptor reads the id and the deadline, in the order of slots."""
    other = Notes.attach(os.dup(notes.fileno()))
    notes.started(3, "late", 12.5)
    notes.started(0, "early", math.inf)
    notes.tick(7.25)

    assert [Running("early", math.inf), Running("late", 12.5)] == other.running()
    assert 7.25 == other.last_tick
    other.close()


def test_an_ended_job_is_not_running(notes: Notes) -> None:
    """The end of one job leaves the others noted."""
    notes.started(0, "a", 1.0)
    notes.started(1, "b", 2.0)
    notes.ended(0)

    assert [Running("b", 2.0)] == notes.running()
    assert ["a"] == notes.ended_last()


def test_a_slot_can_be_used_again(notes: Notes) -> None:
    """A shorter id leaves nothing of a longer one before it."""
    notes.started(2, "a-long-identity", 1.0)
    notes.ended(2)
    notes.started(2, "b", 2.0)

    assert [Running("b", 2.0)] == notes.running()


@pytest.mark.parametrize("job_id", ["x" * 500, "ö" * 300, "a" + "€" * 300, "", "\x00nul\x00"])
def test_any_id_can_be_found_by_its_short_form(notes: Notes, job_id: str) -> None:
    """Ids too long for a slot, or of any characters, are recognised through `shorten`."""
    notes.started(0, job_id, 1.0)

    assert [Running(shorten(job_id), 1.0)] == notes.running()
    assert len(shorten(job_id).encode()) <= ID_BYTES + 2


def test_a_file_without_notes_is_refused(tmp_path: object) -> None:
    """Attaching to something else is an error, not garbage."""
    fd = os.open(f"{tmp_path}/other", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4096)

    with pytest.raises(ValueError, match="holds no notes"):
        Notes.attach(fd)
    os.close(fd)


def test_without_memfd_a_nameless_file_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memfd the table is a temporary file without a name."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    notes = Notes.create(2)
    notes.started(1, "a", 3.0)

    assert [Running("a", 3.0)] == notes.running()
    notes.close()


_WRITER = """
import os, sys
from goose.worker.notes import Notes
notes = Notes.attach(int(sys.argv[1]))
ids = [c * 150 for c in "abcdefgh"]
sys.stdout.write("go"); sys.stdout.flush()
while True:
    for n, name in enumerate(ids):
        notes.started(0, name, float(n))
        notes.ended(0)
"""


def test_a_reader_never_sees_a_mixture_of_two_jobs() -> None:
    """While another process writes as fast as it can, every record read is one it wrote."""
    notes = Notes.create(1)
    fd = notes.fileno()
    valid = {Running(letter * 150, float(n)) for n, letter in enumerate("abcdefgh")}
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.read(2)
        seen: set[Running] = set()
        deadline = time.monotonic() + 10
        reads = 0
        while (reads < 60_000 or seen != valid) and time.monotonic() < deadline:
            seen.update(notes.running())
            reads += 1
        writer.kill()

    assert valid == seen
    notes.close()


def test_noting_a_job_is_cheap(notes: Notes) -> None:
    """Start and end of a job together cost about a microsecond: ten times that is a defect."""
    name = "0190a0b0-1234-7abc-8def-0123456789ab"
    rounds = 20_000
    best = min(
        timeit.repeat(
            lambda: (notes.started(1, name, 1.5), notes.ended(1)), number=rounds, repeat=7
        )
    )

    assert best / rounds < 1e-5
