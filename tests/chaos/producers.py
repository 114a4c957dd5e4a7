"""Threads that enqueue while everything breaks, and remember what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import goose
from tests.chaos import jobs

PERSISTENCE = 60.0
"""Seconds for which an enqueue that failed is repeated."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a client."""

    start: float
    end: float
    error: str
    """What it raised; empty if it returned."""


class Producers:
    """Enqueue *total* jobs, each by a name of its own, from *threads* threads.

    An enqueue that fails is repeated by ``client.submit`` until it is acknowledged, as the
    error's text says.

    Args:
        clients: Used in turn by the threads, so that several threads share one.
        rate: Jobs a second, of all threads together, until `hurry`.
        seconds: How long a job takes on average.
        failing: Whether there are jobs that fail the first time.
    """

    def __init__(
        self,
        clients: Sequence[goose.Client],
        total: int,
        *,
        threads: int,
        rate: float,
        seconds: float,
        seed: int,
        failing: bool = True,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.unsure: Counter[str] = Counter()
        """How often a job was sent again after nobody knew what had become of it."""
        self.acknowledged: list[str] = []
        self.failing: list[str] = []
        """Those acknowledged that fail once by design."""
        self.given_up: list[str] = []
        self.strange: list[str] = []
        """Errors that are no `goose.EnqueueError`."""
        self.hurrying = threading.Event()
        self._stopping = False
        self._fails = 0.02 if failing else 0.0
        self._seconds = seconds
        self._pause = threads / rate
        shares = [total // threads + (n < total % threads) for n in range(threads)]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(clients[n % len(clients)], f"t{n}", share, random.Random(f"{seed}/{n}")),
                name=f"producer-{n}",
            )
            for n, share in enumerate(shares)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def hurry(self) -> None:
        """Enqueue what is left as fast as possible, and wait until all is acknowledged."""
        self.hurrying.set()
        for thread in self._threads:
            thread.join()

    def enough(self) -> None:
        """Enqueue no more than what is under way, and wait until that is acknowledged."""
        self._stopping = True
        self.hurry()

    def _run(self, client: goose.Client, prefix: str, share: int, chance: random.Random) -> None:
        quick = client.using(retry=goose.Retry(backoff=0.2))
        done = 0
        while done < share and not self._stopping:
            kind = chance.random()
            count = min(share - done, chance.randint(2, 20) if kind < 0.2 else 1)
            names = [f"{prefix}-{n}" for n in range(done, done + count)]
            calls = [(name, chance.uniform(0, 2 * self._seconds)) for name in names]
            done += count
            try:
                if kind < 0.2:
                    self.persist(client, lambda c=calls: client.enqueue_many(jobs.work, c), names)
                elif kind < 0.3:
                    delay = chance.uniform(0, 3)
                    self.persist(
                        client,
                        lambda c=calls[0], d=delay: client.enqueue_in(d, jobs.work, *c),
                        names,
                    )
                elif kind < 0.3 + self._fails:
                    name = names[0]
                    once = f"{name}.once"
                    self.failing.append(name)
                    self.persist(
                        client, lambda n=name, o=once: quick.enqueue(jobs.fail_once, n, o), names
                    )
                else:
                    self.persist(client, lambda c=calls[0]: client.enqueue(jobs.work, *c), names)
            except Exception as error:  # noqa: BLE001 - it is reported, and the campaign fails
                self.strange.append(f"{type(error).__name__}: {error}")
                self.given_up += names
            self.hurrying.wait(count * self._pause * chance.uniform(0.5, 1.5))

    def persist(
        self, client: goose.Client, send: Callable[[], object], names: Sequence[str]
    ) -> None:
        """Call *send*, and then submit what is left until all is acknowledged."""
        deadline = time.monotonic() + PERSISTENCE
        left = self._try(send)
        while left is not None:
            if time.monotonic() > deadline:
                self.given_up += names
                return
            self.unsure.update(str(job.args[0]) for job in left if left[job] == "unknown")
            time.sleep(0.1)
            again = left
            left = self._try(lambda again=again: client.submit(again))
        self.acknowledged += names

    def _try(self, send: Callable[[], object]) -> Mapping[goose.Job[Any], str] | None:
        """Return what is known of the jobs that were not stored, None when all were."""
        start = time.monotonic()
        try:
            send()
        except goose.EnqueueError as error:
            self.attempts.append(Attempt(start, time.monotonic(), str(error)))
            return error.jobs
        self.attempts.append(Attempt(start, time.monotonic(), ""))
        return None
