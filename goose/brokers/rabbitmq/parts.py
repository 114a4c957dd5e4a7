"""The parts of one broker object in one process, and the wires between them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from goose.brokers.rabbitmq.confirms import Parcel
from goose.brokers.rabbitmq.intake import Intake
from goose.brokers.rabbitmq.keeper import Keeper
from goose.brokers.rabbitmq.ladder import climb
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.parcels import aloft
from goose.brokers.rabbitmq.publishing import Publisher
from goose.brokers.rabbitmq.topology import Topology
from goose.brokers.rabbitmq.words import REPEAT, UNSTARTED, Testimony, short, spoken
from goose.jobs import Envelope

CLOSE_SECONDS = 2.0
"""Seconds a connection may take to end in good order."""
STRANDED = "default"
"""Whose dead jobs those join of which nobody knows where they belong."""


class Parts:
    """Made in one process and used in no other."""

    def __init__(
        self,
        options: Options,
        on_return: Callable[[str, str], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self.names = Names(options)
        self._options = options
        self._told_return = on_return
        self._on_lost = on_lost
        self.publisher = Publisher(options, "client", on_return=self._returned, on_lost=on_lost)
        self.topology = Topology(options, self.names, self.publisher)
        self._lock = threading.Lock()
        self._intake: Intake | None = None
        self._keeper: Keeper | None = None
        self._testimony = Testimony()
        self._witness = False
        self._speaking = False
        self.publisher.kept = lambda: self._witness or self._intake is not None
        self.publisher.on_ready = self._say_all

    def _returned(self, key: str, job_id: str) -> None:
        self.topology.forget()
        self._told_return(key, job_id)

    @property
    def intake(self) -> Intake:
        """What takes jobs, made when it is first needed."""
        if self._intake is None:
            with self._lock:
                if self._intake is None:
                    self._keeper = keeper = Keeper(
                        self.names, store=self._store, strand=self._strand, on_wire=self._on_wire
                    )
                    self._intake = Intake(
                        self._options,
                        self.names,
                        on_lost=self._on_lost,
                        announce=self.announce,
                        on_parked=keeper.take,
                    )
        return self._intake

    def held(self, queue: str) -> int:
        """Return how many ready jobs of *queue* the server has pushed here."""
        return 0 if self._intake is None else self._intake.held(queue)

    def _on_wire(self, do: Callable[[], object]) -> None:
        self.intake.wire.call(do)

    # --- parked jobs ---------------------------------------------------------------------

    def _store(self, queue: str, parcel: Parcel, left: float) -> None:
        deadline = time.monotonic() + self._options.timeout
        if left <= 0:
            parcel = parcel._replace(key=self.topology.ready(queue, deadline))
        else:
            way = climb(left)
            entry = self.topology.way(way, queue, deadline)
            again = aloft(Envelope(parcel.id, queue, parcel.body), way, entry, None)
            headers = {**(again.headers or {}), **(parcel.headers or {})} or None
            parcel = again._replace(headers=headers)
        self.publisher.send([parcel], deadline)

    def _strand(self, parcel: Parcel) -> None:
        headers = {**(parcel.headers or {}), "goose-died": repr(time.time())}
        deadline = time.monotonic() + self._options.timeout
        grave = self.topology.dead(STRANDED, deadline)
        self.publisher.send([parcel._replace(key=grave, headers=headers)], deadline)

    # --- words ---------------------------------------------------------------------------

    def announce(self, job_ids: Sequence[str]) -> None:
        """Tell whoever listens that these jobs were given back unstarted."""
        self._say(spoken("", {short(job_id): UNSTARTED for job_id in job_ids}))

    def _say(self, body: bytes) -> None:
        self.publisher.whisper(Parcel(self.names.words, "", str(uuid.uuid4()), body))

    def testify(self, verdicts: Mapping[str, str]) -> None:
        """Say this now and again; with nothing to say, be ready to."""
        self._witness = True
        if verdicts:
            self.publisher.wire.call(lambda: self._begin(verdicts))

    def _begin(self, verdicts: Mapping[str, str]) -> None:
        self._testimony.add(verdicts)
        self._say(self._testimony.sayings()[-1])
        if not self._speaking:
            self._speaking = True
            self.publisher.wire.later(REPEAT, self._speak)

    def _speak(self) -> None:
        self._say_all()
        self._speaking = bool(self._testimony.sayings())
        if self._speaking:
            self.publisher.wire.later(REPEAT, self._speak)

    def _say_all(self) -> None:
        # Also over a new connection, at once: what was said while there was none was not heard.
        for body in self._testimony.sayings():
            self._say(body)

    def close(self) -> None:
        """Let go of everything."""
        if self._keeper is not None:
            self._keeper.close()
        if self._intake is not None:
            self._intake.close(CLOSE_SECONDS)
        self.publisher.close(CLOSE_SECONDS)
