"""What a power cut leaves of acknowledged jobs: of the AOF, only what had reached the disk.

The machine cannot be switched off, so the disk is imitated. While jobs are enqueued, strace notes
every write to the AOF and every flush of it. Whatever was written when a flush began is on the
disk once that flush has ended, and nothing else is certain to be. For some instants of the run
the AOF is cut to what was certain by then, and a server is started from that: it must have every
job that was acknowledged by then, as the setting promises.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from goose.brokers.redis import RedisBroker
from goose.jobs import Envelope
from tests.chaos.fleet import wait_until
from tests.servers import programs
from tests.servers.redis import DURABLE, RedisServer

RUN = 3.0
"""Seconds for which jobs are enqueued."""
INSTANTS = (0.5, 1.3, 2.1, 2.9)
"""Seconds after the beginning at which the power is cut, each by itself."""
EVERYSEC = 2.0
"""Seconds that ``everysec`` may lose: Redis promises one, and two when the disk is slow."""
_AOF = "appendonly.aof.1.incr.aof"
_CALL = re.compile(
    r"^(?P<task>\d+) +(?P<at>\d+\.\d+) "
    r"(?P<name>write|fdatasync|fsync)\(\d+<(?P<path>[^>]*)>.*?"
    r"(?:= (?P<result>-?\d+).*?<(?P<took>[\d.]+)>|(?P<unfinished><unfinished \.\.\.>))$"
)
_RESUMED = re.compile(
    r"^(?P<task>\d+) +(?P<at>\d+\.\d+) <\.\.\. \w+ resumed>.*= (?P<result>-?\d+).*<[\d.]+>$"
)


@dataclass(frozen=True, slots=True)
class Flushed:
    """So many bytes of the AOF were certain to be on the disk from that instant on."""

    at: float
    size: int


def flushes(log: Path) -> list[Flushed]:
    """Return what strace saw reach the disk, in order of time; instants are epoch seconds."""
    found: list[Flushed] = []
    begun: dict[str, tuple[str, int]] = {}
    size = 0
    for line in log.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is not None and call["path"].endswith(_AOF):
            if call["unfinished"]:
                begun[call["task"]] = (call["name"], size)
            elif call["name"] == "write":
                size += max(0, int(call["result"]))
            elif int(call["result"]) == 0:
                found.append(Flushed(float(call["at"]) + float(call["took"]), size))
        resumed = _RESUMED.match(line)
        if resumed is not None and resumed["task"] in begun:
            name, before = begun.pop(resumed["task"])
            if name == "write":
                size += max(0, int(resumed["result"]))
            elif int(resumed["result"]) == 0:
                found.append(Flushed(float(resumed["at"]), before))
    return found


def enqueue_for(seconds: float, url: str) -> list[tuple[str, float]]:
    """Enqueue ten jobs after ten; return the id of each and when it was acknowledged."""
    acknowledged: list[tuple[str, float]] = []
    end = time.monotonic() + seconds
    with closing(RedisBroker(url)) as broker:
        while time.monotonic() < end:
            names = [str(uuid.uuid4()) for _ in range(10)]
            broker.enqueue([Envelope(name, "mail", b"{}") for name in names])
            acknowledged += [(name, time.time()) for name in names]
    return acknowledged


def stored_after_a_cut(source: Path, folder: Path, size: int) -> set[str]:
    """Return the jobs that a server finds in the data of *source*, its AOF cut to *size* bytes."""
    shutil.copytree(source / "appendonlydir", folder / "appendonlydir")
    with (folder / "appendonlydir" / _AOF).open("r+b") as file:
        file.truncate(size)
    with RedisServer(folder, config=DURABLE) as server:
        return {key.decode() for key in server.client.hkeys("goose:{default:mail}:jobs")}


@pytest.mark.parametrize(("fsync", "may_lose"), [("always", 0.0), ("everysec", EVERYSEC)])
def test_a_power_cut_loses_no_more_than_was_said(
    own_folder: Path, fsync: str, may_lose: float
) -> None:
    """Every acknowledged job is there, or with ``everysec`` alone every one older than two seconds."""
    log = own_folder / "strace.log"
    trace = ("-D", "-f", "-y", "-ttt", "-T", "-s", "0", "-e", "trace=write,fdatasync,fsync")
    watched = (programs.find("strace"), *trace, "-o", str(log))
    config = {**DURABLE, "appendfsync": fsync}
    folder = own_folder / "server"
    with RedisServer(folder, config=config, under=watched) as server:
        began = time.time()
        acknowledged = enqueue_for(RUN, server.url)
        wait_until(
            lambda: flushes(log)[-1].at > acknowledged[-1][1] - 1, 10, "strace is up to date"
        )
        server.kill()
        seen = flushes(log)

    assert len(acknowledged) > 100
    assert len(seen) > 1, "nothing reached the disk"
    for number, after in enumerate(INSTANTS):
        cut = began + after
        size = max((flushed.size for flushed in seen if flushed.at <= cut), default=0)
        found = stored_after_a_cut(folder, own_folder / f"cut{number}", size)
        _check(acknowledged, found, cut - may_lose, cut)


def _check(
    acknowledged: Sequence[tuple[str, float]], found: set[str], sure: float, cut: float
) -> None:
    expected = {name for name, at in acknowledged if at <= sure}
    by_then = {name for name, at in acknowledged if at <= cut}

    assert set() == expected - found, "acknowledged jobs are gone"
    assert len(found) <= len(by_then) + 10, "a cut that cuts nothing proves nothing"
