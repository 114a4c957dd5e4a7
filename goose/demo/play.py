"""One demo from its first job to its verdict.

It has a queue of its own, so it can run on a broker that others use, and leaves nothing
there. Its files are in a temporary folder, which stays only if something went wrong.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

from goose._words import several
from goose.brokers import redact
from goose.brokers.base import Capability, Inspector, State
from goose.clients import Client
from goose.demo import work
from goose.demo.crew import Crew
from goose.demo.files import File
from goose.demo.history import History
from goose.demo.verdict import Ending, Report, Work, judge
from goose.errors import BrokerError, ConfigError, EnqueueError, Unsupported
from goose.jobs import new_id
from goose.retries import Retry
from goose.settings import Settings
from goose.worker.process import read_stat

KILLS = (0.25, 0.6)
"""How much of the work is done when a worker process is killed, for each kill."""
ROUNDS = 10
"""So many times the work is repeated at most, should it be over before the kills have hit."""
FEW = 500
"""Jobs; with fewer, kills have little chance to hit."""
SCHEDULED_MOST = 100
"""Jobs that are scheduled; each is stored by itself, so they are not for speed."""
LOOK = 0.02
"""Seconds between two looks at what happens."""
SETTLE = 20.0
"""Seconds for second runs to come and go when everything has been done once."""


class Show(Protocol):
    """Somebody who watches."""

    def progress(self, done: int, total: int) -> None:
        """Take notice of how far it is; called often."""
        ...

    def say(self, text: str) -> None:
        """Take notice of an event."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    files: Sequence[File]
    """At least one."""
    broker: str | None = None
    """URL; None is a temporary SQLite file."""
    jobs: int | None = None
    """How many; None is one for each file, `FEW` at least. They go over the files again if need be."""
    seconds: float = 90.0
    """After which it ends, done or not."""


def play(plan: Plan, show: Show) -> Report:
    """Run the demo and return its report, with `Report.problems` if anything went wrong.

    Every process it starts has ended when it returns or raises.

    Raises:
        ConfigError: The broker's URL is wrong, or worker processes cannot share the broker.
        BrokerError: The broker cannot be reached, or refuses.
        Unsupported: This system does not show which processes are the demo's own.
    """
    if not read_stat(os.getpid()):
        raise Unsupported(
            "the demo makes sure by /proc that it kills no process but its own, and this system "
            "has no /proc; run it on Linux, or in a container"
        )
    with _folder() as folder:
        url = f"sqlite:///{folder}/demo.db" if plan.broker is None else anywhere(plan.broker)
        with _client(url) as client:
            stage = _Stage(plan, client, folder, show)
            try:
                report = stage.run(url)
            finally:
                stage.clear()
        if report.problems:
            kept = shutil.copytree(folder, f"{folder}-failed")
            show.say(f"marks, results and the workers' log are kept in {kept}")
        return report


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="goose-demo-") as name:
        for part in ("marks", "results", "stumbled"):
            Path(name, part).mkdir()
        yield Path(name)


@contextmanager
def _client(url: str) -> Iterator[Client]:
    """Return a client that depends on no settings around it."""
    with Client(url, settings=Settings()) as client:
        if Capability.SHARED not in client.broker.capabilities:
            raise ConfigError(
                f"{redact(url)} lives inside one process, so the workers of the demo cannot share "
                "it: leave out --broker for a temporary SQLite file, or name a broker that can, "
                "such as sqlite:///demo.db"
            )
        yield client


def anywhere(url: str) -> str:
    """Return *url* such that it means the same in every directory."""
    path, question, query = url.removeprefix("sqlite:///").partition("?")
    if not url.startswith("sqlite:///") or not path or path.startswith(":"):
        return url
    return f"sqlite:///{Path(path).absolute()}{question}{query}"


class _Stage:
    """What `play` has at hand."""

    def __init__(self, plan: Plan, client: Client, folder: Path, show: Show) -> None:
        self._queue = f"demo-{new_id()[-12:]}"
        self._plan = plan
        self._client = client.using(queue=self._queue)
        self._folder = folder
        self._show = show
        self._history = History(folder / "marks")
        self._works: list[Work] = []
        self._rounds = 0
        self._touched = False

    def run(self, url: str) -> Report:
        """Do all of it."""
        deadline = time.monotonic() + self._plan.seconds
        self._enqueue()  # before there are workers: nothing needs ending if the broker refuses
        with Crew(self._folder, url, self._queue) as crew:
            self._work(crew, deadline)
            self._settle(crew, min(deadline, time.monotonic() + SETTLE))
            left, dead = self._stored()
            ending = Ending(crew.stop(), left, dead)
            kills = crew.kills
        self._history.read()
        self._show.say("comparing every result with a measurement of its own")
        results = self._folder / "results"
        return judge(self._works, self._history, kills, len(KILLS), results, ending)

    def clear(self) -> None:
        """Leave nothing in a broker that others use."""
        if self._touched and self._plan.broker and isinstance(self._client.broker, Inspector):
            try:
                for state in (State.SCHEDULED, State.READY, State.DEAD):
                    with suppress(Unsupported):  # what cannot be seen cannot be cleared
                        self._client.inspector.purge(state, self._queue)
            except BrokerError as error:
                self._show.say(f"queue {self._queue} could not be cleared: {error}")

    # --- enqueue -------------------------------------------------------------------------

    def _enqueue(self) -> None:
        """Put one round of jobs on the broker: most now, some later, some that fail at first.

        Raises:
            BrokerError: The broker did not confirm.
        """
        self._rounds += 1
        files = self._plan.files
        wanted = max(len(files), FEW)
        if self._plan.jobs is not None and self._rounds == 1:
            wanted = self._plan.jobs
        items = list(enumerate(islice(cycle(files), wanted), len(self._works)))
        later = items[::10][:SCHEDULED_MOST]
        failing = items[5::10]
        others = [item for item in items if item not in set(later) | set(failing)]
        retrying = self._client.using(retry=Retry(backoff=0.5))
        try:
            jobs = [
                *self._client.enqueue_many(work.measure, _arguments(others)),
                *retrying.enqueue_many(work.stumble, _arguments(failing)),
            ]
            for job, (number, file) in zip(jobs, [*others, *failing], strict=True):
                self._works.append(Work(number, file, job.enqueued_at))
            for at, (number, file) in enumerate(later):
                delay = 0.5 + 2.0 * at / len(later)
                job = self._client.enqueue_in(delay, work.measure, number, file.path)
                due = job.enqueued_at + delay
                self._works.append(Work(number, file, due, scheduled=True))
        except EnqueueError as error:
            self._touched |= set(error.jobs.values()) != {"not_stored"}
            cause = error.__cause__
            raise (cause if isinstance(cause, BrokerError) else BrokerError(str(error))) from error
        self._touched = True

    # --- work ----------------------------------------------------------------------------

    def _work(self, crew: Crew, deadline: float) -> None:
        """Wait until all is done and the kills have hit."""
        while time.monotonic() < deadline and crew.exit_code() is None:
            self._history.read()
            done, total = len(self._history.done), len(self._works)
            self._show.progress(done, total)
            if len(crew.kills) == len(KILLS):
                if done == total:
                    return
            elif done >= KILLS[len(crew.kills)] * total or self._rounds > 1:
                killed = self._kill(crew)
                if done == total and not killed and not self._again():
                    return
            time.sleep(LOOK)

    def _kill(self, crew: Crew) -> bool:
        kill = crew.kill_busy(self._history)
        if kill is not None:
            self._show.say(f"killed worker process {kill.pid} with {several(kill.jobs)} under way")
        return kill is not None

    def _again(self) -> bool:
        """Enqueue another round, for all was done before the kills could hit; or give up."""
        if self._rounds == ROUNDS:
            return False
        self._show.say("all done before a kill could hit: once more")
        self._enqueue()
        return True

    def _settle(self, crew: Crew, deadline: float) -> None:
        """Wait until the queue is empty: what a kill hit just before its ack runs again."""
        while time.monotonic() < deadline and crew.exit_code() is None and self._stored()[0]:
            time.sleep(LOOK)

    def _stored(self) -> tuple[int | None, int]:
        """Return how many jobs of the demo are yet to be done (None: nobody can tell), and dead."""
        broker = self._client.broker
        if not isinstance(broker, Inspector):
            return None, 0
        dead = broker.count(State.DEAD, self._queue)
        try:
            left = (State.SCHEDULED, State.READY, State.RUNNING)
            return sum(broker.count(state, self._queue) for state in left), dead
        except Unsupported:
            return None, dead


def _arguments(items: Iterable[tuple[int, File]]) -> list[tuple[int, str]]:
    return [(number, file.path) for number, file in items]
