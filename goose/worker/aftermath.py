"""What follows the death of a child process: its jobs are taken over and settled.

The supervisor saw the child end, so nobody has to wait for its session to lapse. And it
has the child's notes, so it knows what ran. `testimony` turns both into verdicts, and an
`Aftermath` carries them to the broker until that has worked.

Every try begins a session of its own, which first takes over what an earlier try may have
left: a reply that was lost, or a settle that failed half way, then leaves nothing behind
that only the lapse of a session would bring back.

A broker without `Sessions` lends the jobs again by itself. Where it is `Witnessed`, the
verdicts are sent after them instead, and whoever is lent such a job next carries them out.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum

from goose._words import several
from goose.brokers.base import Broker, Delivery, Session, Sessions, Witnessed
from goose.metrics.base import CRASHED, RECOVERED
from goose.worker.clock import Clock
from goose.worker.errands import Submit
from goose.worker.notes import Running, shorten
from goose.worker.recovery import Verdict, settle_orphans

logger = logging.getLogger("goose.worker.aftermath")

BATCH = 100
"""Jobs taken over at a time."""
RETRY_FIRST = 0.5
"""Seconds before the second try; doubles with each further one."""
RETRY_LIMIT = 15.0


class Cause(Enum):
    """Why a child process ended."""

    LEFT = "left"
    """In good order, or because the supervisor wanted it to: nobody is to blame."""
    TIMED_OUT = "timed_out"
    """The supervisor killed it because a job ran over its hard timeout."""
    DIED = "died"
    """By itself, by another's signal, or because it gave no sign of life."""


def testimony(
    cause: Cause, running: Iterable[Running], ended: Iterable[str], died_at: float
) -> dict[str, Verdict]:
    """Return the verdict on each job that a dead process had started, by its `shorten`ed id.

    Where nothing ran, a job that had just ended and was not settled is the next suspect: what
    it left behind may have been slower than its own return.

    Args:
        cause: Why the process ended.
        running: What ran, by its notes, read after its end.
        ended: What had run last in each free slot, by the same notes.
        died_at: Monotonic instant of its end, or of the signal that ended it.
    """
    deadlines = {job.job_id: job.hard_deadline_mono for job in running}
    if cause is Cause.LEFT:
        return dict.fromkeys(deadlines, Verdict.UNSTARTED)
    if cause is Cause.TIMED_OUT:
        return {
            job_id: Verdict.TIMED_OUT if deadline <= died_at else Verdict.UNSTARTED
            for job_id, deadline in deadlines.items()
        }
    if not deadlines:
        return dict.fromkeys(ended, Verdict.ENDED)
    return dict.fromkeys(deadlines, Verdict.ALONE if len(deadlines) == 1 else Verdict.SUSPECT)


class Aftermath:
    """Takes over what *sessions* held, as often as it takes.

    Args:
        broker: Where the sessions were.
        sessions: All the dead process ever had.
        verdicts: What is known of each job that was started, by its `shorten`ed id.
        name: What log lines call the process.

    Attributes:
        tally: What it has done, by name of metric and queue; whole once `step` says so.
    """

    def __init__(
        self,
        broker: Broker,
        sessions: Sequence[Session],
        verdicts: Mapping[str, Verdict],
        *,
        name: str,
        ttl: float,
        submit: Submit,
        clock: Clock,
        random: random.Random,
    ) -> None:
        self._broker = broker
        self._sessions = list(sessions)
        self._verdicts = verdicts
        self._name = name
        self._ttl = ttl
        self._submit = submit
        self._clock = clock
        self._random = random
        self.tally: Counter[tuple[str, str]] = Counter()
        self._own = Session(str(uuid.uuid4()), 0)
        self._try: Future[int] | None = None
        self._tries = 0
        self._next_at = 0.0

    def step(self, now: float) -> bool:
        """Do what there is to do; say whether all is done."""
        duty = self._duty()
        if duty is None:
            return True
        if self._try is None:
            if now >= self._next_at:
                self._try = self._submit(duty)
            else:
                return False
        if not self._try.done():
            return False
        tried, self._try = self._try, None
        error = tried.exception()
        if error is None:
            if tried.result():
                logger.info("%s: took over %s it held", self._name, several(tried.result()))
            return True
        self._next_at = now + min(RETRY_FIRST * 2.0 ** min(self._tries, 10), RETRY_LIMIT)
        if not self._tries:
            logger.warning("%s: its jobs cannot be taken over yet: %s", self._name, error)
        self._tries += 1
        return False

    def _duty(self) -> Callable[[], int] | None:
        if isinstance(self._broker, Sessions):
            return self._recover
        return self._testify if isinstance(self._broker, Witnessed) and self._verdicts else None

    def _testify(self) -> int:
        assert isinstance(self._broker, Witnessed)
        self._broker.testify({job_id: known.value for job_id, known in self._verdicts.items()})
        return 0

    def _verdict(self, delivery: Delivery) -> Verdict:
        return self._verdicts.get(shorten(delivery.envelope.id), Verdict.UNSTARTED)

    def _recover(self) -> int:
        broker = self._broker
        assert isinstance(broker, Sessions)
        own = self._own = Session(self._own.id, self._own.epoch + 1)
        broker.open(own, ttl=self._ttl)
        before, self._sessions = self._sessions, [own, *self._sessions]
        total = 0
        for dead in before:
            while orphans := broker.recover(own, limit=BATCH, dead=dead):
                done = settle_orphans(
                    self._broker,
                    orphans,
                    self._verdict,
                    now=self._clock.wall(),
                    random=self._random,
                )
                total += len(orphans)
                self.tally.update((RECOVERED, orphan.envelope.queue) for orphan in orphans)
                self.tally.update((CRASHED, job.queue) for job in done.blamed)
        broker.end(own)
        return total
