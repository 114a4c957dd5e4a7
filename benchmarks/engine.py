"""CPU of the engine alone: an embedded worker on the memory broker, in a process of its own.

Run as ``python engine.py JOBS``; prints microseconds of CPU per job, all threads together,
from the worker's first job to its last. All jobs are there before it starts; middleware
and metrics are off.
"""

from __future__ import annotations

import sys

import work

import goose
from goose.brokers.memory import MemoryBroker


def main(jobs: int) -> None:
    """Measure once."""
    broker = MemoryBroker()
    client = goose.Client(broker)
    client.enqueue(work.tick)
    client.enqueue_many(work.noop, [()] * jobs)
    client.enqueue(work.tick)
    worker = goose.Worker(broker, allow=["work"], concurrency=1)
    worker.start()
    ended = work.reached_end.wait(120)
    worker.stop(5)
    if not ended:
        raise SystemExit("the jobs were not done within 120 s")
    first, last = work.cpu_used
    print(1e6 * (last - first) / jobs)


if __name__ == "__main__":
    main(int(sys.argv[1]))
