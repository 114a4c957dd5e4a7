"""What is measured of every side on Redis; each function does it once, on a clean server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from redis_sides import Side
from redis_trial import Trial, cpu_seconds, family

from tests.servers.redis import RedisServer

NAPS = 1000
AT_ONCE = 200
"""Naps at once, in one process."""
NAP = 0.1
"""Seconds of a nap."""
IDEAL = NAPS / AT_ONCE * NAP

Figures = dict[str, float]
Measure = Callable[[Side, RedisServer, Path, int], Figures]


def enqueue(side: Side, server: RedisServer, folder: Path, jobs: int) -> Figures:
    """Single calls, then many at once: jobs per second, memory and CPU of the server."""
    assert server.process is not None
    few = max(jobs // 4, 50)
    with Trial(side, server, folder, few) as trial:
        figures = {"single": trial.produce("single", "noop", few)}
    many = max(int(jobs * side.share), 500)
    with Trial(side, server, folder, many) as trial:
        before = _memory(server)
        busy = cpu_seconds([server.process.pid])
        rate = trial.produce("bulk", "noop", many)
        busy = cpu_seconds([server.process.pid]) - busy
        figures["stored"] = (_memory(server) - before) / many
        if side.has_bulk:
            figures["bulk"] = rate
            figures["bulk_cpu"] = 1e6 * busy / many
    return figures


def _memory(server: RedisServer) -> int:
    info: dict[str, int] = server.client.info("memory")  # type: ignore[assignment]
    return info["used_memory"]


def drain(side: Side, server: RedisServer, folder: Path, jobs: int) -> Figures:
    """One worker process drains no-ops."""
    jobs = max(int(jobs * side.share), 200)
    with Trial(side, server, folder, jobs) as trial:
        trial.produce("bulk", "noop", jobs)
        with trial.worker() as pid:
            trial.wait_for(lambda: trial.done() > 0, "starting its worker")
            rate, own, servers = _watched(trial, server, [pid])
    return {"rate": rate, "cpu": own, "redis_cpu": servers}


def drain_by_two(side: Side, server: RedisServer, folder: Path, jobs: int) -> Figures:
    """Two worker processes drain no-ops; it counts from when both have run a job."""
    jobs = max(int(jobs * side.share * 2), 200)
    with Trial(side, server, folder, jobs) as trial:
        trial.produce("bulk", "noop", jobs)
        with trial.worker(1) as first, trial.worker(2) as second:
            trial.wait_for(
                lambda: (trial.done(1) > 0 and trial.done(2) > 0) or trial.done() == jobs,
                "starting its workers",
            )
            if trial.done() == jobs:
                raise SystemExit(f"{side.name}: {jobs:,} jobs are too few for two; raise --jobs")
            rate, own, servers = _watched(trial, server, [first, second])
    return {"rate2": rate, "cpu2": own, "redis_cpu2": servers}


def _watched(trial: Trial, server: RedisServer, workers: list[int]) -> tuple[float, float, float]:
    """Return jobs per second, and CPU µs per job of workers and server, until all are done."""
    assert server.process is not None
    pids = [pid for worker in workers for pid in family(worker)]
    start, own = time.perf_counter(), cpu_seconds(pids)
    servers = cpu_seconds([server.process.pid])
    begun = trial.done()
    trial.wait_for(lambda: trial.done() == trial.places, "draining")
    seconds = time.perf_counter() - start
    left = max(trial.places - begun, 1)
    own = cpu_seconds(pids) - own
    servers = cpu_seconds([server.process.pid]) - servers
    trial.check_once()
    return left / seconds, 1e6 * own / left, 1e6 * servers / left


def latency(side: Side, server: RedisServer, folder: Path, jobs: int) -> Figures:
    """From before the enqueue to the start of the function, one every 20 ms; milliseconds."""
    count = max(min(jobs // 60, 300), 30)
    with Trial(side, server, folder, 1 + count) as trial:  # the first does not count
        with trial.worker(concurrency=8 if side.name == "dramatiq" else None) as pid:
            trial.produce("single", "noop", 1)
            trial.wait_for(lambda: trial.done() == 1, "starting its worker")
            trial.forget()
            time.sleep(0.5)
            pids = family(pid)
            busy, start = cpu_seconds(pids), time.perf_counter()
            time.sleep(1.0)
            idle = (cpu_seconds(pids) - busy) / (time.perf_counter() - start)
            trial.produce("pace", "stamp", 1 + count)
            trial.wait_for(lambda: trial.done() == 1 + count, "idle latency")
            time.sleep(0.02)
        taken = sorted(1e3 * (began - sent) for sent, began in trial.times()[1:])
    return {
        "p50": taken[count // 2],
        "p99": taken[min(int(count * 0.99), count - 1)],
        "idle_cpu": 100 * idle,
    }


def naps(side: Side, server: RedisServer, folder: Path, jobs: int) -> Figures:
    """1,000 jobs that wait 100 ms, 200 at once in one process: seconds, and times the ideal."""
    if not side.naps:
        return {}
    with Trial(side, server, folder, NAPS) as trial:
        trial.produce("bulk", "nap", NAPS)
        with trial.worker(concurrency=AT_ONCE):
            trial.wait_for(lambda: trial.done() == NAPS, "naps")
            time.sleep(0.02)
        times = trial.times()
        seconds = max(ended for _, ended in times) - min(began for began, _ in times)
    return {"naps": seconds / IDEAL}


MEASURES: dict[str, Measure] = {
    "enqueue": enqueue,
    "drain": drain,
    "drain2": drain_by_two,
    "latency": latency,
    "naps": naps,
}
