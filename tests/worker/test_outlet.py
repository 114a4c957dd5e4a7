"""Output whose reader has stopped does not stop whoever writes."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import goose
from goose.worker import outlet as module
from goose.worker.outlet import Outlet
from tests.acceptance import jobs
from tests.acceptance.command import GOOSE, environment


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A small pipe: reading end, writing end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_all(reader: int, count: int) -> bytes:
    found = b""
    while found.count(b"\n") < count:
        found += os.read(reader, 65536)
    return found


@pytest.mark.parametrize("way", ["own flags", "thread"])
def test_lines_wait_for_a_reader_and_come_in_order(
    pipe: tuple[int, int], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more than a pipe holds is taken at once, and none of it is lost."""
    reader, writer = pipe
    if way == "thread":
        monkeypatch.setattr(module, "_trying", lambda _fd: (None, lambda: None))
    outlet = Outlet(writer)
    before = time.monotonic()
    for number in range(2000):
        outlet.write(b"line %04d %s\n" % (number, b"x" * 50))
    assert time.monotonic() - before < 5
    lines = read_all(reader, 2000).splitlines()

    assert [b"line %04d" % number for number in range(2000)] == [line[:9] for line in lines]
    assert outlet.drain(10)
    assert os.get_blocking(writer)


def test_what_does_not_fit_is_dropped_and_counted(pipe: tuple[int, int]) -> None:
    """Memory is bounded, and the log says how much is missing once somebody reads again."""
    reader, writer = pipe
    outlet = Outlet(writer, limit=10_000)
    for _ in range(1000):
        outlet.write(b"x" * 99 + b"\n")
    text = b""
    while "dropped" not in text.decode():
        text += os.read(reader, 65536)

    kept = text.count(b"x" * 99 + b"\n")
    assert f"… {1000 - kept:,} lines were dropped: nobody read them" in text.decode()
    assert 100 < kept < 200


def test_a_reader_that_is_gone_is_no_error() -> None:
    """There is nobody to tell."""
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    os.close(reader)
    for _ in range(10):
        assert 5 == outlet.write(b"gone\n")
    os.close(writer)


def test_sockets_and_files_are_written_to_as_well(own_folder: Path) -> None:
    """Journals listen on sockets; files take everything at once and are appended to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = Outlet(ours.fileno())
        outlet.write(b"to a socket\n")
        assert b"to a socket\n" == theirs.recv(100)
        outlet.close()
    with (own_folder / "log").open("wb", buffering=0) as file:
        file.write(b"before\n")
        Outlet(file.fileno()).write(b"after\n")
        file.write(b"end\n")
    assert "before\nafter\nend\n" == (own_folder / "log").read_text()


@pytest.mark.processes
def test_jobs_go_on_under_a_worker_whose_output_nobody_reads(
    own_folder: Path, pipe: tuple[int, int], wait_until: Callable[..., None]
) -> None:
    """Log lines and prints of hundreds of jobs fill the pipe; every job is done, and TERM works."""
    import subprocess

    reader, writer = pipe
    notes = own_folder / "notes"
    with goose.Client(f"sqlite:///{own_folder}/goose.db") as client:
        once = client.using(retry=goose.Retry(max_retries=0, keep_dead=False))
        once.enqueue_many(jobs.fail, [("x" * 500,)] * 300)
        client.enqueue_many(jobs.say, [("said",)] * 10)
    process = subprocess.Popen(
        [GOOSE, "worker", "tests.acceptance.jobs", "--processes", "2", "--ttl", "5"],
        cwd=own_folder, env=environment(NOTES=str(notes)), stdout=writer, stderr=writer,
    )  # fmt: skip
    try:
        wait_until(
            lambda: notes.exists() and len(notes.read_text().splitlines()) == 310,
            seconds=40,
            what="all jobs have run",
        )
        process.terminate()
        assert 0 == process.wait(20)
    finally:
        process.kill()
        process.wait()
    assert os.read(reader, 10)
