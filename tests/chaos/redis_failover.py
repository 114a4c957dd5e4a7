"""What a failover loses: masters are killed under load, and what was acknowledged is looked for.

Redis replicates after it has answered, so a master that dies takes with it what its replica
had not got yet. Before every second failover the link between the two is cut, half a second
before the master dies. With ``wait=1`` an enqueue returns only when the replica has the job;
one that cannot be confirmed in time raises, and is repeated until it is.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import goose
from goose import brokers
from goose.brokers.base import Inspector
from tests.chaos import jobs
from tests.chaos.fleet import Fleet, wait_until
from tests.chaos.history import read_marks
from tests.chaos.producers import Producers
from tests.chaos.remains import left, stored
from tests.servers.redis_sentinel import RedisSentinel

RATE = 400.0
"""Jobs enqueued a second."""
CUT = 0.5
"""Seconds between the cut of the link and the death of the master, every second time."""


@dataclass(slots=True)
class Failover:
    """One of them."""

    cut: bool
    """Whether the replica had been cut off just before."""
    seconds: float
    """Until the other server was master."""
    resumed: float
    """Seconds from then until a job enqueued after it had run."""


@dataclass(slots=True)
class Result:
    """What came of a number of failovers."""

    wait: int
    acknowledged: int
    unsure: int
    """Enqueues that were repeated because nobody knew of the first."""
    lost: list[str]
    """Jobs that were acknowledged, and are neither done nor stored."""
    twice: int
    """Runs beyond the first: what was acked or lent just before a failover."""
    failovers: list[Failover] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a report."""
        return [
            f"wait={self.wait}: {len(self.failovers)} failovers",
            f"  acknowledged        {self.acknowledged:,} jobs, {self.unsure} sent again unsure",
            f"  lost                {len(self.lost)} acknowledged jobs",
            f"  run again           {self.twice}",
            f"  new master after    {max(f.seconds for f in self.failovers):.1f} s at most",
            f"  works again after   {max(f.resumed for f in self.failovers):.1f} s at most, from then on",
            *(f"  PROBLEM: {problem}" for problem in self.strange[:5]),
        ]


def run(folder: Path, failovers: int, *, wait: int) -> Result:
    """Let *failovers* happen while jobs are enqueued and run.

    Args:
        folder: For logs, data and marks.
        failovers: How many.
        wait: Replicas that must confirm an enqueue.

    Raises:
        TimeoutError: No master was found, or the queues did not drain.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with RedisSentinel(folder / "servers") as group:
        url = f"{group.url}?wait={wait}"
        clients = [goose.Client(url), goose.Client(url)]
        producers = Producers(
            clients,
            int(RATE * 10 * failovers),
            threads=4,
            rate=RATE,
            seconds=0.005,
            seed=1,
            failing=False,
        )
        options = ["--ttl", "6", "--concurrency", "10", "--queues", "first,default"]
        with Fleet(folder, url, options) as fleet, closing(brokers.connect(url)) as broker:
            assert isinstance(broker, Inspector)
            # Right after a failover there is no replica that could confirm anything.
            client = goose.Client(group.url)
            fleet.start()
            _probe(client, fleet, "probe-start")
            producers.start()
            done = []
            try:
                for number in range(failovers):
                    cut = bool(number % 2)
                    time.sleep(1.0)
                    done.append(_fail_over(group, client, fleet, number, cut=cut))
            finally:
                producers.enough()
            wait_until(lambda: left(broker) == 0, 120, "everything drains")
            fleet.stop()
            kept = {str(job.args[0]) for found in stored(broker).values() for job in found}
            for used in (client, *clients):
                used.close()
    return _result(wait, producers, fleet, kept, done)


def _fail_over(
    group: RedisSentinel, client: goose.Client, fleet: Fleet, number: int, *, cut: bool
) -> Failover:
    replica = group.replica
    if cut:
        # With a password that nobody asked for it cannot come back at once.
        replica.client.config_set("masterauth", "wrong")
        group.master.client.client_kill_filter(_type="replica")
        time.sleep(CUT)
    seconds = group.fail_over()
    replica.client.config_set("masterauth", "")
    resumed = _probe(client, fleet, f"probe-{number}")
    group.mend()
    return Failover(cut, seconds, resumed)


def _probe(client: goose.Client, fleet: Fleet, name: str) -> float:
    """Return the seconds until a new job of the first queue has run."""
    began = time.monotonic()
    first = client.using(queue="first")
    left = None
    while True:
        try:
            if left is None:
                first.enqueue(jobs.probe, name)
            else:
                first.submit(left)
            break
        except goose.EnqueueError as error:
            left = error.jobs
            if time.monotonic() > began + 60:
                raise
            time.sleep(0.05)
    wait_until((fleet.marks / f"{name}.probe").exists, 60, "a job enqueued after it runs")
    return time.monotonic() - began


def _result(
    wait: int, producers: Producers, fleet: Fleet, kept: set[str], done: list[Failover]
) -> Result:
    runs = read_marks(fleet.marks)
    ended = [run.name for run in runs if run.end is not None]
    found = set(ended) | kept
    lost = [name for name in producers.acknowledged if name not in found]
    return Result(
        wait=wait,
        acknowledged=len(producers.acknowledged),
        unsure=producers.unsure.total(),
        lost=lost,
        twice=len(ended) - len(set(ended)),
        failovers=done,
        strange=[*producers.strange, *(f"never acknowledged: {n}" for n in producers.given_up)],
    )
