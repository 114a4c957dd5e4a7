"""A batch of a million members: memory of whoever enqueues it, and the time of a look at it.

Run as ``python benchmarks/batches.py [--members N] [--broker URL]``. Without a URL it is a Redis
server of its own. The functions that members call are never run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import goose

LOOKS = 20


def member(number: int) -> None:
    """What each member would do."""


def enqueue(url: str, members: int) -> None:
    """Enqueue the batch and look at it; print what that took."""
    from batches import member  # the name that a worker would know it by

    with goose.Client(url) as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        batch = client.enqueue_batch(member, ((number,) for number in range(members)))
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        looks = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            progress = batch.progress()
            looks.append(1000 * (time.perf_counter() - began))
        assert members == progress.total
    print(f"{members:,} members in {seconds:.1f} s: {members / seconds:,.0f} a second")
    print(f"memory of the process: {after:.0f} MB at most, {before:.0f} MB before")
    print(f"progress: {statistics.median(looks):.1f} ms, {max(looks):.1f} ms at most of {LOOKS}")


def main() -> None:
    """Run the enqueuing in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--broker")
    parser.add_argument("--enqueue", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.enqueue:
        enqueue(given.broker, given.members)
        return
    command = [sys.executable, __file__, "--enqueue", "--members", str(given.members), "--broker"]
    if given.broker:
        subprocess.run([*command, given.broker], check=True)
        return
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.servers.redis import RedisServer

    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        subprocess.run([*command, server.url], check=True)


if __name__ == "__main__":
    main()
