"""Carries out outcomes: tells the broker what became of each delivery.

An outcome leaves as soon as it is there, together with whatever else ended meanwhile: while
one batch is under way the next gathers, so a lone job is settled at once and a thousand tiny
ones in a few round trips.

What happens to an outcome, in order: it is added; it is in a batch; the broker has carried it
out. Only then is it counted, logged and forgotten. A batch that fails stays and is tried again
until the broker answers. An answer may say that deliveries were no longer ours: after a first,
clear try that means another worker has the job (counted, logged); after a failed try it may as
well mean that the failed try was carried out and only its reply was lost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from goose.brokers.base import Broker, Delivery
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.worker.outcomes import Outcome, Verb, fields, known

logger = logging.getLogger("goose.worker.settle")

BATCH = 500
"""Outcomes in one call to the broker at most."""
IDLE = 1.0
"""Seconds between looks when nothing is pending; additions kick the loop anyway."""


class Settler:
    """Settles what is added. `add` may be called from any thread, `step` from one.

    Args:
        broker: Where the deliveries came from.
        on_settled: Told of each batch that is settled and which of it was lost.
    """

    def __init__(
        self,
        broker: Broker,
        on_settled: Callable[[Sequence[Outcome], Sequence[Delivery]], None],
    ) -> None:
        self._broker = broker
        self._on_settled = on_settled
        self._added: deque[Outcome] = deque()
        self._batches: deque[tuple[list[Outcome], bool]] = deque()

    def add(self, outcome: Outcome) -> None:
        """Take *outcome* to be settled by a step to come."""
        self._added.append(outcome)

    @property
    def pending(self) -> int:
        """Outcomes not settled yet."""
        return len(self._added) + sum(len(batch) for batch, _ in self._batches)

    def step(self, _now: float) -> float:
        """Settle what is there.

        Returns:
            Seconds until it wants to be called again.

        Raises:
            Exception: What the broker raised, a `BrokerError` if it keeps its contract; what
                could not be settled is kept for the next call.
        """
        self._gather()
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
                _tell(batch, lost)
            self._on_settled(batch, () if unsure else lost)
        return 0.0 if self._added else IDLE

    def _gather(self) -> None:
        """Move what was added into batches of one verb each."""
        by_verb: dict[Verb, list[Outcome]] = {}
        for _ in range(len(self._added)):
            outcome = self._added.popleft()
            by_verb.setdefault(outcome.verb, []).append(outcome)
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


def _tell(batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
    """Say of each outcome that it is settled for good: the broker has said that it was ours."""
    refused = {delivery.envelope.id for delivery in lost}
    for outcome in batch:
        id_ = outcome.delivery.envelope.id
        if id_ not in refused:
            extra = fields(outcome.job) if outcome.job else known(outcome.delivery)
            logger.debug("job %s is %s", id_, outcome.ending, extra=extra)


def _with_envelopes(batch: Sequence[Outcome]) -> list[tuple[Delivery, Envelope]]:
    return [(outcome.delivery, cast("Envelope", outcome.envelope)) for outcome in batch]
