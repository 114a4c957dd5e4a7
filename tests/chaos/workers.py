"""The fault campaign against worker processes, on any broker several processes can share.

Jobs run in several supervised worker processes while these are killed, paused and poisoned.
In the end everything must be done, dead for a reason, or still stored, and whatever ran twice
must be explained by a fault that met its first run.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import goose
from goose import brokers
from goose.brokers.base import Inspector, State
from goose.jobs import decode
from tests.chaos import jobs
from tests.chaos.fleet import Fleet, wait_until
from tests.chaos.history import Fault, Run, Verdict, check, read_marks
from tests.chaos.remains import left

TTL = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a campaign is."""

    jobs: int
    kills: int
    workers: int = 3
    seed: int = 1
    spacing: float = 0.5
    """Seconds between two faults, on average."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a campaign."""

    verdict: Verdict
    faults: Counter[str]
    dead: dict[str, str]
    """Reason by name of the dead jobs."""
    seconds: float
    drained: float
    """Seconds from the last fault until nothing was left."""
    settled: int
    """Runs of which the worker noted that they were settled."""

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        verdict = self.verdict
        return [
            f"jobs acknowledged   {verdict.jobs:,}",
            f"runs                {verdict.runs:,}",
            f"lost                {len(verdict.lost)}",
            f"run twice           {verdict.duplicates} (bound by what was under way: {verdict.bound})",
            f"unexplained         {len(verdict.unexplained)}",
            *(f"  {text}" for text in verdict.unexplained[:5]),
            f"faults              {dict(self.faults)}",
            f"met running jobs    {dict(verdict.met)}",
            f"dead                {self.dead}",
            f"seconds             {self.seconds:.1f}, {self.drained:.1f} of them after the last fault",
        ]


def run(broker_url: str, folder: Path, plan: Plan) -> Result:
    """Run the campaign in *folder* and return what came of it.

    Raises:
        TimeoutError: The queues did not drain.
    """
    chance = random.Random(plan.seed)
    began = time.monotonic()
    broker = brokers.connect(broker_url)
    assert isinstance(broker, Inspector)
    client = goose.Client(broker)
    fails = [f"f{n}" for n in range(plan.jobs // 100)]
    poison = ["segfault", "leave", "never_end"]
    names = [f"w{n}" for n in range(plan.jobs - len(fails) - len(poison))]
    # Long enough that kills find many under way, short enough that all are done in good time.
    seconds = plan.kills * plan.spacing + 3 * TTL * 1.5
    mean = seconds * plan.workers * 10 / plan.jobs
    options = ["--ttl", str(TTL), "--concurrency", "10", "--hard-timeout", "5", "--grace", "10"]
    with Fleet(folder, broker_url, options) as fleet:
        quick = client.using(retry=goose.Retry(backoff=0.2))
        client.enqueue_many(jobs.work, [(name, chance.uniform(0, 2 * mean)) for name in names[::2]])
        quick.enqueue_many(jobs.fail_once, [(name, f"{name}.once") for name in fails])
        for _ in range(plan.workers):
            fleet.start()
        for name in names[1::2][: plan.jobs // 20]:
            client.enqueue_in(chance.uniform(0, plan.kills * plan.spacing), jobs.work, name, mean)
        client.enqueue_many(
            jobs.work,
            [(name, chance.uniform(0, 2 * mean)) for name in names[1::2][plan.jobs // 20 :]],
        )
        wait_until(
            lambda: len(list(fleet.marks.glob("*.marks"))) >= plan.workers, 30, "workers run"
        )
        client.enqueue(jobs.segfault, "segfault")
        client.enqueue(jobs.leave, "leave")
        client.using(retry=goose.Retry(max_retries=1, backoff=0.2)).enqueue(
            jobs.never_end, "never_end"
        )
        for number in range(plan.kills):
            time.sleep(chance.uniform(0.5, 1.5) * plan.spacing)
            if number % 5 == 4:
                fleet.kill_supervisor(chance)
            else:
                fleet.kill_child(chance)
            # In the middle, so that there is work left for the pauses to meet.
            if number == plan.kills // 4:
                fleet.pause(*fleet.at_work(chance), TTL * 1.5, children_only=False)
            if number in (plan.kills // 2, 3 * plan.kills // 4):
                fleet.pause(*fleet.at_work(chance), TTL * 1.5, children_only=True)
        last = time.monotonic()
        wait_until(lambda: left(broker) == 0, 180, "everything drains")
        drained = time.monotonic() - last
        codes = fleet.stop()
        assert all(code in (0, -9) for code in codes), codes
        dead = {
            str(job.args[0]): job.failure.reason if job.failure else ""
            for job in (decode(found.envelope) for found in broker.page(State.DEAD).items)
        }
        acknowledged = [*names, *fails, *poison]
        runs = read_marks(fleet.marks)
        # A process that one of its own jobs ended was met by that, too.
        faults = [*fleet.faults, *_ends_by_poison(runs, poison)]
        verdict = check(acknowledged, runs, faults, still_stored=dead, retried=fails)
    broker.close()
    counted = Counter(fault.kind for fault in faults)
    settled = sum(run.settled is not None for run in runs)
    return Result(verdict, counted, dead, time.monotonic() - began, drained, settled)


def _ends_by_poison(runs: list[Run], poison: list[str]) -> list[Fault]:
    """Return a fault for each process that a poison job ended, at the last thing it noted."""
    last = {run.pid: 0.0 for run in runs}
    for run in runs:
        last[run.pid] = max(last[run.pid], run.start, run.end or 0.0)
    return [Fault("poison", run.pid, last[run.pid]) for run in runs if run.name in poison]
