"""Carries out outcomes: tells the broker what became of each delivery.

An outcome leaves as soon as it is there, together with whatever else ended meanwhile: while
one batch is under way the next gathers, so a lone job is settled at once and a thousand tiny
ones in a few round trips.

What happens to an outcome, in order: it is added; it is in a batch; the broker has carried it
out. Only then is it counted, logged and forgotten. A batch that fails stays and is tried again
until the broker answers. An answer may say that deliveries were no longer ours: after a first,
clear try that means another worker has the job (counted, logged); after a failed try it may as
well mean that the failed try was carried out and only its reply was lost.

An outcome that ends a job with traits is told to them first (see `goose.features.traits`). While
that cannot be done it waits by itself, and no other outcome waits for it.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from goose._words import several
from goose.brokers.base import Broker, Delivery
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from goose.worker.outcomes import FINAL, Ending, Outcome, Verb, fields, known

logger = logging.getLogger("goose.worker.settle")

BATCH = 500
"""Outcomes in one call to the broker at most."""
IDLE = 1.0
"""Seconds between looks when nothing is pending; additions kick the loop anyway."""
TOLD = 32
"""Outcomes that traits are told of at a time."""
TELL_FIRST = 0.1
"""Seconds until traits that could not be told are told again; doubles with each further try."""
TELL_LIMIT = 5.0


class Settler:
    """Settles what is added. `add` may be called from any thread, `step` from one.

    Args:
        broker: Where the deliveries came from.
        on_settled: Told of each batch that is settled and which of it was lost.
        tell: Tells the traits of these outcomes; returns which, by job id, must be told again.
        retried: Tells the traits of jobs that will run again, as well as it can.
    """

    def __init__(
        self,
        broker: Broker,
        on_settled: Callable[[Sequence[Outcome], Sequence[Delivery]], None],
        tell: Callable[[Sequence[Outcome]], Mapping[str, BrokerError]] = lambda _: {},
        retried: Callable[[Sequence[Outcome]], None] = lambda _: None,
    ) -> None:
        self._broker = broker
        self._on_settled = on_settled
        self._tell_traits = tell
        self._tell_retried = retried
        self._untold: list[Outcome] = []
        self._kept: list[Outcome] = []
        """Those that could not be told of, until `_tell_at`."""
        self._away = False
        """Whether the store was, when it was last told something."""
        self._tell_at = -math.inf
        self._pause = TELL_FIRST
        self._added: deque[Outcome] = deque()
        self._batches: deque[tuple[list[Outcome], bool]] = deque()

    def add(self, outcome: Outcome) -> None:
        """Take *outcome* to be settled by a step to come."""
        self._added.append(outcome)

    @property
    def pending(self) -> int:
        """Outcomes not settled yet."""
        waiting = len(self._added) + len(self._untold) + len(self._kept)
        return waiting + sum(len(batch) for batch, _ in self._batches)

    def step(self, now: float) -> float:
        """Settle what is there.

        Returns:
            Seconds until it wants to be called again.

        Raises:
            Exception: What the broker raised, a `BrokerError` if it keeps its contract; what
                could not be settled is kept for the next call.
        """
        self._gather()
        try:
            self._settle_all()
        finally:  # a batch that is refused time and again holds up nobody else
            self._tell(now)
        self._settle_all()
        if self._added or (self._untold and not self._away):
            return 0.0
        return min(IDLE, self._pause) if self._untold or self._kept else IDLE

    def _tell(self, now: float) -> None:
        """Tell traits of some that have ended; what they know of is settled next.

        Some and not all: telling is a few calls to the store for each, and while that goes on
        nothing is settled.
        """
        due = now >= self._tell_at
        if due and self._kept:
            self._untold[:0], self._kept = self._kept, []
        if not self._untold or (self._away and not due):
            return
        batch, self._untold = self._untold[:TOLD], self._untold[TOLD:]
        kept = self._tell_traits(batch)
        self._batch(each for each in batch if each.delivery.envelope.id not in kept)
        self._kept += [each for each in batch if each.delivery.envelope.id in kept]
        self._away = any(isinstance(error, BrokerUnavailable) for error in kept.values())
        if kept:
            if self._pause == TELL_FIRST:
                error = next(iter(kept.values()))
                logger.warning("the end of %s is not noted yet: %s", several(len(kept)), error)
            self._pause = min(2 * self._pause, TELL_LIMIT)
            self._tell_at = now + self._pause
        elif not self._kept:
            self._pause = TELL_FIRST

    def _settle_all(self) -> None:
        while self._batches:
            batch, unsure = self._batches[0]
            try:
                lost = self._settle(batch)
            except BrokerUnavailable:
                self._batches[0] = (batch, True)
                raise
            except Exception:  # a broker's defect is one outcome's misfortune, like a refusal
                if len(batch) > 1:
                    # One bad outcome must not hold up the others: each by itself from now on.
                    self._batches.popleft()
                    self._batches.extendleft(([outcome], unsure) for outcome in reversed(batch))
                else:
                    self._batches.rotate(-1)
                raise
            self._batches.popleft()
            if lost and not unsure:
                _warn(lost)
            if logger.isEnabledFor(logging.DEBUG):
                _log(batch, lost)
            self._on_settled(batch, () if unsure else lost)

    def _gather(self) -> None:
        """Move what was added into batches, or to what the traits have to be told of."""
        ready: list[Outcome] = []
        again: list[Outcome] = []
        for _ in range(len(self._added)):
            outcome = self._added.popleft()
            job = outcome.job
            if job is not None and job.traits and outcome.ending in FINAL:
                self._untold.append(outcome)
                continue
            if job is not None and job.traits and outcome.ending is Ending.RETRIED:
                again.append(outcome)
            ready.append(outcome)
        if again:
            self._tell_retried(again)
        self._batch(ready)

    def _batch(self, ready: Iterable[Outcome]) -> None:
        """Put *ready* into batches of one verb each."""
        by_verb: defaultdict[Verb, list[Outcome]] = defaultdict(list)
        for outcome in ready:
            by_verb[outcome.verb].append(outcome)
        for outcomes in by_verb.values():
            for start in range(0, len(outcomes), BATCH):
                self._batches.append((outcomes[start : start + BATCH], False))

    def _settle(self, batch: Sequence[Outcome]) -> Sequence[Delivery]:
        match batch[0].verb:
            case Verb.ACK:
                return self._broker.ack([outcome.delivery for outcome in batch])
            case Verb.RELEASE:
                return self._broker.release([outcome.delivery for outcome in batch])
            case Verb.REQUEUE:
                return self._broker.requeue(_with_envelopes(batch))
            case Verb.BURY:
                return self._broker.bury(_with_envelopes(batch))
            case Verb.SETTLED:
                return ()


def _warn(lost: Sequence[Delivery]) -> None:
    for delivery in lost:
        logger.warning(
            "job %s was no longer ours when it ended: session %s had been given up, so another "
            "worker has it, or had it",
            delivery.envelope.id,
            delivery.session.key,
            extra=known(delivery),
        )


def _log(batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
    """Say of each outcome that it is settled for good: the broker has said that it was ours."""
    refused = {delivery.envelope.id for delivery in lost}
    for outcome in batch:
        id_ = outcome.delivery.envelope.id
        if id_ not in refused:
            extra = fields(outcome.job) if outcome.job else known(outcome.delivery)
            logger.debug("job %s is %s", id_, outcome.ending, extra=extra)


def _with_envelopes(batch: Sequence[Outcome]) -> list[tuple[Delivery, Envelope]]:
    return [(outcome.delivery, cast("Envelope", outcome.envelope)) for outcome in batch]
