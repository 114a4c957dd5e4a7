"""Where features take part in the pipeline: at the gate to the slots, and before a settle.

`Gate.admit` stands between preparing and buffering, on the fetching thread, for all jobs of one
fetch that bear traits. `Gate.ended` stands before the settler's call to the broker, for outcomes
that end such a job for good. A job without traits passes neither.

What traits are, and how they can break, is told in `goose.features.traits`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from goose.errors import BrokerError
from goose.features.traits import Defer, Ended, Fill, Finish, Traits
from goose.features.traits import Ending as Final
from goose.jobs import Failure, decode
from goose.worker.outcomes import FINAL, UNBOUNDED, Ending, Outcome, Verb, fields, stored
from goose.worker.prepare import Preparer
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")


TICK = 5.0
"""Seconds between two times that traits keep alive what they hold."""


class Gate:
    """Asks and tells the traits of jobs that bear some.

    Args:
        traits: Those of this process.
        preparer: Makes the outcome of what ends here.
    """

    def __init__(self, traits: Traits, preparer: Preparer) -> None:
        self._traits = traits
        self._preparer = preparer

    def admit(self, works: Sequence[Work]) -> tuple[list[Work], list[Outcome]]:
        """Return those of *works* that may start, and the outcomes of the others; never raises."""
        answers = self._traits.admit([work.job for work in works if work.job.traits])
        admitted: list[Work] = []
        outcomes: list[Outcome] = []
        for work in works:
            answer = answers.get(work.job.id)
            match answer:
                case None:
                    admitted.append(work)
                case Fill(args, kwargs):
                    work.filled = (args, kwargs)
                    admitted.append(work)
                case Defer(seconds, reason):
                    outcomes.append(_later(work, seconds, reason))
                case Finish():
                    ended = self._finish(work, answer)
                    (admitted if isinstance(ended, Work) else outcomes).append(ended)  # type: ignore[arg-type]
        return admitted, outcomes

    def _finish(self, work: Work, answer: Finish) -> Work | Outcome:
        job = work.job.evolve(traits={}) if answer.told else work.job
        if answer.ending == "dead":
            return self._preparer.end(work.delivery, job, answer.reason)
        ending = Ending(answer.ending)
        logger.info(
            "job %s of %s is %s (%s)", job.id, job.fn, ending, answer.reason, extra=fields(job)
        )
        return Outcome(ending, Verb.ACK, work.delivery, None, job, reason=answer.reason)

    def ended(self, outcomes: Sequence[Outcome]) -> dict[str, BrokerError]:
        """Tell the traits of what ended for good; return what kept jobs, by id, from being told of."""
        return self._traits.ended([_ended(each) for each in outcomes if each.ending in FINAL])

    @property
    def holds(self) -> bool:
        """Whether a trait holds something for jobs while they are here."""
        return self._traits.holds

    def settled(self, batch: Sequence[Outcome]) -> None:
        """Tell the traits which of their jobs have left this process without having ended."""
        left = [
            outcome.job
            for outcome in batch
            if outcome.job is not None
            and outcome.job.traits
            and outcome.ending not in FINAL
            and outcome.ending is not Ending.WAITING
        ]
        if left:
            self._traits.left(left)

    def dropped(self, works: Sequence[Work]) -> None:
        """Tell the traits of jobs that were taken, and are others' by now."""
        left = [work.job for work in works if work.job.traits]
        if left:
            self._traits.left(left)

    def step(self, _now: float) -> float:
        """Keep alive what traits hold; return the seconds until the next time.

        Raises:
            BrokerError: Something could not be kept.
        """
        self._traits.tick()
        return TICK

    def retried(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the traits of what failed and will run again. Never raises."""
        self._traits.retried([each.job for each in outcomes if each.job is not None])


def _later(work: Work, seconds: float, reason: str) -> Outcome:
    envelope = stored(work.job, seconds)
    return Outcome(
        Ending.WAITING, Verb.REQUEUE, work.delivery, envelope, work.job, None, reason, seconds
    )


def _ended(outcome: Outcome) -> Ended:
    job, failure = outcome.job, None
    assert job is not None  # only a decoded job bears traits
    if outcome.ending is Ending.DEAD and outcome.envelope is not None:
        failure = _failure(outcome)
    ending = cast("Final", outcome.ending.value)
    return Ended(job, ending, outcome.result, failure, outcome.reason)


def _failure(outcome: Outcome) -> Failure | None:
    """Return the failure history of a dead job, which only its next state has."""
    assert outcome.envelope is not None
    return decode(outcome.envelope, max_bytes=UNBOUNDED).failure
