"""Workers of a campaign, each with a queue of its own besides the common one.

What a worker does with a *probe*, a job in its own queue, shows whether that very worker works:
of workers that share all queues, one that has fallen silent is not missed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import goose
from tests.chaos import jobs
from tests.chaos.fleet import Fleet, exists, wait_until
from tests.chaos.history import Fault

GRACE = 2.0
"""Seconds that running jobs get at a stop; most jobs of a campaign need far less."""
HARD_TIMEOUT = 15.0


class Crew:
    """Supervisors, one for each of *urls*, and what can be done to them.

    Args:
        folder: For logs and marks.
        urls: The broker as each sees it.
        direct: A client that reaches the broker whatever happens to the network.
        ttl: Of the sessions, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        urls: list[str],
        direct: goose.Client,
        ttl: float,
        chance: random.Random,
    ) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.ttl = ttl
        self.brief = ttl / 4
        """Seconds for which a worker may stand still without anybody taking notice."""
        self.codes: list[int] = []
        """Exit codes of those that were asked to end."""
        self.twice: list[str] = []
        """Jobs that were interrupted by a stop, and so begin twice."""
        self.returned: list[float] = []
        """Seconds from the end of a worker until what it had run began again."""
        self.names: list[str] = []
        """Jobs enqueued here."""
        self._direct = direct
        self._chance = chance
        self._probes = 0
        self.fleets = [
            Fleet(folder, url, _options(f"own-{n},default", ttl)) for n, url in enumerate(urls)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for fleet in self.fleets:
            self._stack.enter_context(fleet)
            fleet.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def faults(self) -> list[Fault]:
        """What was done to processes."""
        return [fault for fleet in self.fleets for fault in fleet.faults]

    def pids(self, fleets: list[Fleet] | None = None) -> set[int]:
        """Return the worker processes."""
        return {
            pid
            for fleet in fleets or self.fleets
            for supervisor in fleet.living()
            for pid in fleet.children(supervisor)
        }

    def probe(self, patience: float = 60.0) -> list[float]:
        """Give each worker a job of its own; return the seconds until each has run it."""
        began = time.monotonic()
        self._probes += 1
        waiting = {}
        for n, _ in enumerate(self.fleets):
            name = f"probe{self._probes}-{n}"
            waiting[n] = self.marks / f"{name}.probe"
            self._enqueue(n, jobs.probe, name)
        taken = [0.0] * len(self.fleets)
        deadline = began + patience
        while waiting and time.monotonic() < deadline:
            for n, path in list(waiting.items()):
                if path.exists():
                    taken[n] = time.monotonic() - began
                    del waiting[n]
            time.sleep(0.005)
        for n in waiting:
            taken[n] = float("inf")
        return taken

    def _enqueue(self, n: int, fn: Callable[..., object], *args: object) -> None:
        client = self._direct.using(queue=f"own-{n}", retry=goose.Retry(backoff=0.2))
        try:
            client.enqueue(fn, *args)
        except goose.EnqueueError as error:
            left = error.jobs
            deadline = time.monotonic() + 30
            while left:
                try:
                    client.submit(left)
                    return
                except goose.EnqueueError as again:
                    left = again.jobs
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

    # --- what can be done to them ----------------------------------------------------------

    def kill_child(self) -> None:
        """F1: SIGKILL of a worker process."""
        self._any().kill_child(self._chance)

    def kill_supervisor(self) -> None:
        """F1: SIGKILL of a supervisor, whose children die with it."""
        self._any().kill_supervisor(self._chance)

    def pause_child(self) -> None:
        """F2: a worker process stands still, and its supervisor kills it."""
        self._pause(children_only=True)

    def pause_all(self) -> None:
        """F2: supervisor and worker stand still for longer than the ttl, and go on as zombies."""
        self._pause(children_only=False)

    def _pause(self, *, children_only: bool) -> None:
        fleet = self._any()
        process = fleet.living()[-1]
        fleet.pause(process, fleet.children(process), self.ttl * 1.5, children_only=children_only)

    def pause_briefly(self) -> None:
        """F4: all stand still, so briefly that nobody may take notice."""
        fleet = self._any()
        pids = [fleet.living()[-1].pid, *fleet.children(fleet.living()[-1])]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(self.brief)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def hold_interpreter(self) -> None:
        """F3: C code keeps the interpreter for longer than the ttl; the supervisor beats on."""
        name = self._name("held")
        n = self._chance.randrange(len(self.fleets))
        self._enqueue(n, jobs.hold_interpreter, name, self.ttl * 1.3)
        time.sleep(self.ttl * 1.3)

    def replace(self) -> None:
        """G1, G4: a deploy: a worker ends by SIGTERM beside its successor."""
        fleet = self._any()
        old = fleet.living()[-1]
        fleet.start()
        wait_until(lambda: bool(fleet.children(fleet.living()[-1])), 20, "it works")
        old.send_signal(signal.SIGTERM)
        self.codes.append(old.wait(GRACE + 20))

    def replace_under_a_long_job(self) -> None:
        """G2: what is not done within the grace is given back at once, and runs again."""
        n = self._chance.randrange(len(self.fleets))
        fleet, name = self.fleets[n], self._name("long")
        old, shown = fleet.living()[-1], self.marks / f"{name}.probe"
        self.twice.append(name)
        self._enqueue(n, jobs.long_work, name, GRACE * 2)
        wait_until(shown.exists, 60, "the long job runs")
        shown.unlink()
        old.send_signal(signal.SIGTERM)
        fleet.start()
        self.codes.append(old.wait(GRACE + 20))
        ended = time.monotonic()
        wait_until(shown.exists, 60, "the long job runs again")
        self.returned.append(time.monotonic() - ended)

    def kill_while_stopping(self) -> None:
        """G3: SIGTERM, and SIGKILL at some moment of the grace, while a job still runs."""
        n = self._chance.randrange(len(self.fleets))
        fleet, name = self.fleets[n], self._name("long")
        old, shown = fleet.living()[-1], self.marks / f"{name}.probe"
        self._enqueue(n, jobs.long_work, name, GRACE)
        wait_until(shown.exists, 60, "the long job runs")
        old.send_signal(signal.SIGTERM)
        time.sleep(self._chance.uniform(0, GRACE / 2))
        self._kill(fleet, old)
        fleet.start()

    def _kill(self, fleet: Fleet, supervisor: subprocess.Popen[bytes]) -> None:
        pids = fleet.children(supervisor)
        began = time.monotonic()
        supervisor.kill()
        supervisor.wait(10)
        wait_until(lambda: not any(map(exists, pids)), 10, "children end with their supervisor")
        over = time.monotonic()
        fleet.faults += [Fault("kill while stopping", pid, began, over) for pid in pids]

    def _any(self) -> Fleet:
        return self._chance.choice(self.fleets)

    def _name(self, prefix: str) -> str:
        name = f"{prefix}{len(self.names)}"
        self.names.append(name)
        return name


def _options(queues: str, ttl: float) -> list[str]:
    options = {
        "--queues": queues,
        "--ttl": f"{ttl:g}",
        "--concurrency": "10",
        "--hard-timeout": f"{HARD_TIMEOUT:g}",
        "--grace": f"{GRACE:g}",
    }
    return [word for option in options.items() for word in option]
