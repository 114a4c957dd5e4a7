"""One child process in the care of its supervisor, from its session to its aftermath.

A charge opens a session for its child, starts the process, sends the session's heartbeats
for as long as the child deserves them, kills it when a job runs over the hard timeout, when
it gives no sign of life or when its time to stop is over, and after its end settles what it
held. A dead process is never restarted here: whoever wants another makes another charge.

All of it happens in `Charge.step`, which never blocks: broker calls are errands, and the
process is seen through a small protocol, so that the whole life can be played without
processes under a clock of the test's own.
"""

from __future__ import annotations

import logging
import math
import signal
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from enum import Enum

from goose._words import several
from goose.brokers.base import Inspector, Session, Sessions, Witnessed
from goose.errors import SessionLost
from goose.metrics.base import PROCESS_DEATHS
from goose.worker.aftermath import Aftermath, Cause, testimony
from goose.worker.control import (
    Count,
    Dump,
    Empty,
    Fatal,
    Leaving,
    Message,
    NewSession,
    Numbers,
    Ordered,
    Ready,
    Refused,
    Registry,
    Stop,
    Stopped,
)
from goose.worker.notes import Running
from goose.worker.plan import Plan, Tools
from goose.worker.process import Process, describe
from goose.worker.pulse import Pulse, Sign

logger = logging.getLogger("goose.worker.charge")

OPEN_RETRY = 1.0
"""Seconds between two tries to open a session."""
STOP_SLACK = 2.5
"""Seconds a child has beyond its grace, to interrupt what runs and to settle it."""
START_PATIENCE = 1.0
"""Seconds a starting child has to obey a stop; what it imports does not matter any more."""
LAST_WORDS = 2.0
"""Seconds a child has from its `Stopped` to the end of its process."""


class Phase(Enum):
    """Where a charge is in its life."""

    OPENING = "opening"
    STARTING = "starting"
    WORKING = "working"
    ENDED = "ended"
    """The process is gone; what it held is being settled."""
    GONE = "gone"


class Charge:
    """One child; `step` it until its `phase` is `Phase.GONE`.

    Attributes:
        phase: Where it is in its life.
        leaving: Whether it takes no more jobs and may be replaced.
        empty: Whether it ended because nothing was left to do.
        fatal: Why it could not begin or go on, if it said so.
        open_error: Why its session could not be opened when that was last tried.
        ready_at: Monotonic instant of its `Ready`, or None.
        ordered: What it read in the orders last, until somebody takes it from here.
    """

    def __init__(self, index: int, plan: Plan, tools: Tools) -> None:
        self.index = index
        self.phase = Phase.OPENING
        self.leaving = False
        self.empty = False
        self.fatal: Fatal | None = None
        self.open_error: BaseException | None = None
        self.ready_at: float | None = None
        self.ordered: Ordered | None = None
        self.process: Process | None = None
        self._plan = plan
        self._tools = tools
        self._sessions = [Session(str(uuid.uuid4()))]
        self._known: Session | None = None
        self._pulse = Pulse(plan.ttl, plan.stall_limit)
        self._opening: Future[None] | None = None
        self._beat: Future[None] | None = None
        self._renewal: Future[None] | None = None
        self._beat_failed = False
        self._next_at = -math.inf
        self._started_at = 0.0
        self._kill_at = math.inf
        self._abandon_at = math.inf
        self._killed_at: float | None = None
        self._cause = Cause.DIED
        self._aftermath: Aftermath | None = None

    @property
    def label(self) -> str:
        """What log lines call it."""
        return f"worker {self.index + 1}" + (f" ({self.process.pid})" if self.process else "")

    @property
    def source(self) -> str:
        """What its numbers are kept under: its place, and which of those who held it."""
        return f"{self.index + 1}/{self.process.pid if self.process else 0}"

    @property
    def alive(self) -> bool:
        """Whether it has a process, or will have one."""
        return self.phase not in (Phase.ENDED, Phase.GONE)

    @property
    def ended_well(self) -> bool:
        """Whether its process has ended and nobody is to blame for that."""
        return not self.alive and self._cause is Cause.LEFT

    @property
    def tally(self) -> Mapping[tuple[str, str, str], int]:
        """What its end has to be counted as, by name, tag and value; complete once it is gone."""
        tally: Counter[tuple[str, str, str]] = Counter()
        if self._cause is not Cause.LEFT and self.process is not None:
            tally[PROCESS_DEATHS, "cause", self._cause.value] += 1
        if self._aftermath is not None:
            for (name, queue), count in self._aftermath.tally.items():
                tally[name, "queue", queue] += count
        return tally

    @property
    def works(self) -> bool:
        """Whether it takes jobs."""
        return self.phase is Phase.WORKING and not self.leaving and self._killed_at is None

    def in_contact(self, now: float, within: float) -> bool:
        """Say whether it takes jobs and the broker answered it in the last *within* seconds."""
        assert self.process is not None or not self.works
        return self.works and now - self.process.last_contact() <= within  # type: ignore[union-attr]

    def count(self, count: Count) -> bool:
        """Have the child count these numbers; say whether it will."""
        # One that leaves has closed what it shows its metrics on.
        return self.works and self.process is not None and self.process.send(count)

    def dump(self) -> None:
        """Log what it runs, and have it log where each job is."""
        if self.process is None or not self.alive:
            return
        ids = [job.job_id for job in self.process.running()]
        logger.warning("%s runs %s: %s", self.label, several(len(ids)), ", ".join(ids) or "none")
        self.process.send(Dump())

    def stop(self, now: float, grace: float, *, make_way: bool = False) -> None:
        """Ask the child to end within *grace* seconds; may be repeated, the shorter one holds.

        With *make_way* another may come to its place before it has ended.
        """
        self.leaving = True
        if self.phase is Phase.OPENING:
            self._end([], [], now)
        elif self.alive and now + grace + STOP_SLACK < self._kill_at:
            self._kill_at = now + grace + STOP_SLACK
            self._abandon_at = now + START_PATIENCE
            assert self.process is not None
            self.process.send(Stop(grace, make_way))

    def kill(self, now: float, cause: Cause) -> None:
        """End the process at once; the first *cause* given is the one that counts."""
        if self.process is not None and self._killed_at is None:
            self._killed_at = now
            self._cause = cause
            self.process.kill()

    def step(self, now: float) -> None:
        """Do what there is to do at *now* (monotonic)."""
        if self.phase is Phase.OPENING:
            self._open(now)
        if self.phase in (Phase.STARTING, Phase.WORKING):
            self._watch(now)
        if self.phase is Phase.ENDED and (self._aftermath is None or self._aftermath.step(now)):
            self.phase = Phase.GONE

    # --- opening -------------------------------------------------------------------------

    def _open(self, now: float) -> None:
        if self._opening is None:
            if now >= self._next_at:
                session = self._sessions[-1]
                self._opening = self._tools.submit(lambda: self._greet(session))
            else:
                return
        if not self._opening.done():
            return
        opening, self._opening = self._opening, None
        error = opening.exception()
        if error is not None:
            if self.open_error is None:
                logger.warning("%s waits for the broker: %s", self.label, error)
            self.open_error = error
            self._next_at = now + OPEN_RETRY
            # Perhaps it was opened and only the reply was lost; an epoch is never opened twice.
            # Nobody ever worked under it, so it holds nothing and need not be remembered.
            self._sessions = [_next_epoch(self._sessions[-1])]
            return
        self.open_error = None
        self._start(now)

    def _greet(self, session: Session) -> None:
        broker = self._tools.broker
        if isinstance(broker, Sessions):
            broker.open(session, ttl=self._plan.ttl)
        elif isinstance(broker, Witnessed):
            broker.testify({})  # what is said of a child's death must not wait for a connection
        elif isinstance(broker, Inspector):
            broker.queues()

    def _start(self, now: float) -> None:
        self._known = self._sessions[-1]
        try:
            self.process = self._tools.spawn(self.index, self._known)
        except OSError as error:
            logger.error("%s cannot be started: %s", self.label, error)
            self._end([], [], now)
            return
        self.phase = Phase.STARTING
        self._started_at = now
        self._next_at = now + self._plan.ttl / 6
        logger.debug("%s started", self.label)

    # --- watching ------------------------------------------------------------------------

    def _watch(self, now: float) -> None:
        assert self.process is not None
        # Before the messages: what a dead process said last is in the line already.
        code = self.process.exit_code()
        for message in self.process.receive():
            self._hear(message, now)
        if code is not None:
            self._after_end(now, code)
            return
        if now >= self._kill_at or (now >= self._abandon_at and self._never_worked()):
            self.kill(now, Cause.LEFT)
        late = [job for job in self.process.running() if job.hard_deadline_mono <= now]
        if late and self._killed_at is None:
            logger.error(
                "%s: job %s ran over its time and did not end; the process is killed and replaced",
                self.label, ", ".join(job.job_id for job in late),
            )  # fmt: skip
            self.kill(now, Cause.TIMED_OUT)
        if self._killed_at is None:
            self._keep_alive(now)

    def _never_worked(self) -> bool:
        # Not only by its `Ready`: it takes jobs a moment before that is heard. A child looks
        # for a `Stop` right before it begins, so one that does not tick by now never will.
        assert self.process is not None
        return self.phase is Phase.STARTING and self.process.last_tick() == -math.inf

    def _hear(self, message: Message, now: float) -> None:
        match message:
            case Ready():
                self.phase = Phase.WORKING
                self.ready_at = now
                logger.info("%s is ready", self.label)
            case Numbers():
                self._tools.witness.numbers(self.source, message.changes)
            case Registry():
                self._tools.witness.registry(self.source, message.families)
            case Refused():
                self._next_at = min(self._next_at, now)
            case Leaving():
                self.leaving = True
                logger.info("%s is leaving: %s", self.label, message.reason)
            case Empty():
                self.leaving = self.empty = True
            case Ordered():
                self.ordered = message
            case Stopped():
                self.leaving = True
                if self._killed_at is None:
                    self._cause = Cause.LEFT
                self._kill_at = min(self._kill_at, now + LAST_WORDS)
            case Fatal():
                self.fatal = message
                self._cause = Cause.LEFT
                self._kill_at = min(self._kill_at, now + LAST_WORDS)
            case _:
                logger.warning("%s sent %s; ignored", self.label, message)

    def _keep_alive(self, now: float) -> None:
        if self._beat is not None and self._beat.done():
            self._beaten(self._beat.exception())
        if self._renewal is not None and self._renewal.done():
            self._renewed(self._renewal.exception(), now)
        if now < self._next_at:
            return
        self._next_at = now + self._plan.ttl / 6
        sign = self._look(now)
        if sign is Sign.LOST:
            logger.error("%s gives no sign of life; it is killed and replaced", self.label)
            self.kill(now, Cause.DIED)
        elif sign is Sign.LIVES and self._beat is None and self._renewal is None:
            broker, session = self._tools.broker, self._sessions[-1]
            if isinstance(broker, Sessions):
                self._beat = self._tools.submit(
                    lambda: broker.heartbeat(session, ttl=self._plan.ttl)
                )

    def _look(self, now: float) -> Sign:
        assert self.process is not None
        tick = self.process.last_tick()
        if self.phase is Phase.STARTING and now - self._started_at <= self._plan.stall_limit:
            tick = now  # imports neither tick nor, always, burn CPU
        return self._pulse.look(
            now, tick=tick, cpu=self.process.cpu_seconds(), stopped=self.process.stopped()
        )

    def _beaten(self, error: BaseException | None) -> None:
        self._beat = None
        if isinstance(error, SessionLost):
            logger.warning("%s: the broker held its session for dead; a new one begins", self.label)
            session = _next_epoch(self._sessions[-1])
            self._sessions.append(session)
            self._renewal = self._tools.submit(lambda: self._greet(session))
            return
        if error is None:
            # It may have been opened though the reply to that was lost.
            self._announce()
        if error is not None and not self._beat_failed:
            logger.warning("%s: a heartbeat failed: %s", self.label, error)
        elif error is None and self._beat_failed:
            logger.info("%s: heartbeats reach the broker again", self.label)
        self._beat_failed = error is not None

    def _renewed(self, error: BaseException | None, now: float) -> None:
        self._renewal = None
        # If it was not opened the next heartbeat says so, and another epoch begins.
        self._next_at = min(self._next_at, now + OPEN_RETRY)
        if error is None:
            self._announce()

    def _announce(self) -> None:
        """Tell the child which session is its own, unless it knows."""
        session = self._sessions[-1]
        if session != self._known and self.process is not None:
            self._known = session
            self.process.send(NewSession(session.id, session.epoch))

    # --- ending --------------------------------------------------------------------------

    def _after_end(self, now: float, code: int) -> None:
        assert self.process is not None
        if self._cause is Cause.TIMED_OUT and code != -signal.SIGKILL:
            self._cause = Cause.DIED  # that was faster
        running, ended = self.process.running(), self.process.ended_last()
        if running or ended:
            self.ready_at = self.ready_at or now  # its first job was faster than its word
        if self._cause is Cause.DIED:
            logger.error(
                "%s died (%s), running %s", self.label, describe(code), several(len(running))
            )
        else:
            logger.info("%s ended (%s)", self.label, describe(code))
        died_at = now if self._killed_at is None else self._killed_at
        self._end(running, ended, died_at)
        self._tools.witness.ended(self.source)
        self.process.close()

    def _end(self, running: Sequence[Running], ended: Sequence[str], died_at: float) -> None:
        self.phase = Phase.ENDED
        if self._known is not None:
            self._aftermath = Aftermath(
                self._tools.broker,
                self._sessions,
                testimony(self._cause, running, ended, died_at),
                name=self.label,
                ttl=self._plan.ttl,
                submit=self._tools.submit,
                clock=self._tools.clock,
                random=self._tools.random,
            )


def _next_epoch(session: Session) -> Session:
    return Session(session.id, session.epoch + 1)
