"""Heartbeats, and taking over from those whose hearts stopped.

`Heartbeat` proves that this process lives. When the broker holds its session for dead, it
opens a new epoch and tells the engine, which drops what it has not started and asks what runs
to stop: others have those jobs by now.

`OrphanChecker` runs in every worker, for sessions of any worker and any queue. It does not
judge by silence before it has itself been in touch with the broker for one whole ttl without a
gap: after an outage, or after it was paused itself, everybody else gets the time to be heard
first. What is proven (a process of this very host that is gone) needs no such patience.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

from goose._words import several
from goose.brokers.base import Broker, Delivery, Session, Sessions
from goose.errors import SessionLost
from goose.worker.clock import Clock
from goose.worker.recovery import Recovered, judge_by_absence, settle_orphans

logger = logging.getLogger("goose.worker")

BEATS_PER_TTL = 6
"""Heartbeats in one ttl: five may be lost before anybody is declared dead."""
BATCH = 100
"""Orphans taken over in one call; bounds the broker's work."""
AUDIT_EVERY = 10.0
"""Audits come once in so many ttls."""


class Heartbeat:
    """Keeps one session alive. `step` is called by one thread.

    Args:
        session: Returns the current session, which is open.
        renew: Called with a new session, opened, after the current one was lost.
    """

    def __init__(
        self,
        broker: Sessions,
        ttl: float,
        *,
        session: Callable[[], Session],
        renew: Callable[[Session], None],
    ) -> None:
        self._broker = broker
        self._ttl = ttl
        self._session = session
        self._renew = renew
        self._epoch = 0
        self._heard_mono: float | None = None

    def begin(self, now: float) -> None:
        """Open the session: its first beat, sent at *now*.

        Raises:
            BrokerError: It may be open or not.
        """
        self._broker.open(self._session(), ttl=self._ttl)
        self._heard_mono = now

    def in_touch(self, now: float) -> bool:
        """Say whether the last beat is recent enough for nobody to hold the session for dead.

        A process that was paused wakes up with a session that lapses at any moment; a job it
        took then would run here and, recovered, elsewhere. Always true where somebody else
        beats, who then has to see to it.
        """
        return self._heard_mono is None or now - self._heard_mono < self._ttl / 2

    def step(self, now: float) -> float:
        """Beat once; return the seconds until the next beat.

        Raises:
            BrokerError: It is not known whether the beat was heard.
        """
        session = self._session()
        try:
            self._broker.heartbeat(session, ttl=self._ttl)
        except SessionLost:
            # An epoch is opened once; if only the reply to that is lost, the next one is tried.
            self._epoch = max(self._epoch, session.epoch) + 1
            fresh = Session(session.id, self._epoch)
            logger.error(
                "session %s was given up by the broker: it was silent for %g s; going on as %s",
                session.key,
                self._ttl,
                fresh.key,
            )
            self._broker.open(fresh, ttl=self._ttl)
            self._renew(fresh)
        self._heard_mono = now  # when it was sent, which the broker's instant is not before
        return self._ttl / BEATS_PER_TTL


class OrphanChecker:
    """Takes over orphans and settles them by the crash policy. `step` is called by one thread.

    Args:
        on_recovered: Told what each round did, and whether by the audit.
        on_doubt: Told when orphans may have been taken over that are not settled.
    """

    def __init__(
        self,
        broker: Broker,
        ttl: float,
        *,
        session: Callable[[], Session],
        on_recovered: Callable[[Sequence[Delivery], Recovered, bool], None],
        on_doubt: Callable[[], None],
        clock: Clock,
        random: random.Random,
    ) -> None:
        self._broker = broker
        self._ttl = ttl
        self._session = session
        self._on_recovered = on_recovered
        self._on_doubt = on_doubt
        self._clock = clock
        self._random = random
        self._in_touch_since: float | None = None
        self._last_touch = 0.0
        self._next_audit: float | None = None

    def step(self, now: float) -> float:
        """Look for orphans once; return the seconds until the next look.

        Raises:
            BrokerError: Some orphans may have been taken over and not settled.
        """
        try:
            return self._look(now)
        except Exception:  # also a defect: what was taken over must not stay lent to this process
            self._in_touch_since = None
            self._on_doubt()
            raise

    def _look(self, now: float) -> float:
        broker = self._broker
        every = self._ttl / BEATS_PER_TTL
        if not isinstance(broker, Sessions):
            return self._ttl
        session = self._session()
        patient = self._is_patient(now)
        orphans = broker.recover(session, limit=BATCH, proven=not patient)
        self._touch(now)
        if orphans:
            self._take_over(orphans, complete=len(orphans) < BATCH, audit=False)
            return 0.0
        if self._next_audit is None:
            # Spread the audits of a fleet that was started at once.
            self._next_audit = now + self._ttl * AUDIT_EVERY * self._random.uniform(0.5, 1.5)
        if patient and now >= self._next_audit:
            strays = broker.audit(session, limit=BATCH)
            if strays:
                logger.error(
                    "the audit found %s lent to no session, to run again", several(len(strays))
                )
                self._take_over(strays, complete=False, audit=True)
                return 0.0
            self._next_audit = now + self._ttl * AUDIT_EVERY
        return every

    def _is_patient(self, now: float) -> bool:
        return self._in_touch_since is not None and (
            now - self._in_touch_since >= self._ttl and now - self._last_touch < self._ttl / 2
        )

    def _touch(self, now: float) -> None:
        # A long gap means that this process was paused: it knows nothing about that time.
        if self._in_touch_since is None or now - self._last_touch >= self._ttl / 2:
            self._in_touch_since = now
        self._last_touch = now

    def _take_over(self, orphans: Sequence[Delivery], *, complete: bool, audit: bool) -> None:
        recovered = settle_orphans(
            self._broker,
            orphans,
            judge_by_absence(orphans, complete=complete),
            now=self._clock.wall(),
            random=self._random,
        )
        holders = {delivery.orphan_of.key for delivery in orphans if delivery.orphan_of}
        logger.warning("recovered %s of dead sessions %s", several(len(orphans)), sorted(holders))
        self._on_recovered(orphans, recovered, audit)
