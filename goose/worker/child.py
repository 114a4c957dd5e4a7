"""One worker process of a supervisor: ``python -m goose.worker.child FD``.

It reads its `Bootstrap` from the control line, builds broker, offer and `Runner`, and says
`Ready`. From then on the main thread only listens: to the supervisor, to ``SIGTERM``, and to
its own reasons to leave (enough jobs, too much memory, changed source, nothing left to do).
Jobs run on other threads, so nothing they do or receive gets in its way.

``SIGINT`` is ignored: a terminal sends it to supervisor and children alike, and the
supervisor decides. When the control line ends, the supervisor is gone and nobody sends
heartbeats for this process: it ends at once, whatever it does.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

from goose import brokers, metrics, middleware, settings
from goose.brokers.base import Broker, Session, Share
from goose.calls import Offer
from goose.errors import BrokerError, ConfigError, GooseError
from goose.metrics import foreign
from goose.metrics.detached import detached
from goose.metrics.fanout import Fanout
from goose.metrics.handover import Handover
from goose.metrics.served import is_served
from goose.worker import crons, logs, outlet
from goose.worker.config import WorkerConfig
from goose.worker.control import (
    Bootstrap,
    Channel,
    Count,
    Dump,
    Empty,
    Fatal,
    Leaving,
    Message,
    NewSession,
    Numbers,
    Ready,
    Refused,
    Registry,
    Stop,
    Stopped,
    die_with,
)
from goose.worker.embedded import connect_resource
from goose.worker.notes import Notes
from goose.worker.reload import SourceWatch
from goose.worker.runner import Runner, RunnerStatistics

logger = logging.getLogger("goose.worker.child")

LISTEN_SECONDS = 0.1
"""Longest wait for a message before other reasons to act are looked at."""
LOOK_SECONDS = 1.0
"""Between two looks at memory and source files."""
LAST_NUMBERS = 0.6
"""Seconds that metrics backends have at the end."""
REGISTRY_SECONDS = 2.0
"""Between two times that the user's own measures are handed over."""
SETTINGS, MODULES, BROKER, OTHER = 2, 3, 4, 1
"""Exit codes of what can go wrong at the start."""


class Work(Protocol):
    """What `Duty` needs of a `Runner`."""

    def stop(self, grace: float) -> bool:
        """Stop within *grace* seconds and a little; say whether nothing runs any more."""
        ...

    def new_session(self, session: Session) -> None:
        """Go on under another session."""
        ...

    def statistics(self) -> RunnerStatistics:
        """Return its numbers."""
        ...

    def is_empty(self) -> bool:
        """Say whether nothing is left to do."""
        ...

    def dump(self) -> None:
        """Log every running job with its stack."""
        ...


class Duty:
    """What a child's main thread does between `Ready` and its end; `step` it until it returns.

    Args:
        bootstrap: What the child was told.
        work: Its runner, started.
        send: Sends a message to the supervisor.
        make_way: Frees what a successor needs at once: ports that metrics listen on.
        metrics: Counts what the supervisor did or measured.
        hand_over: Hands this process's numbers to the supervisor; told whether it is the end.
        rss: Returns the resident memory, in bytes.
        changed: Returns a changed source file, if any; None does not look.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        work: Work,
        *,
        send: Callable[[Message], bool],
        make_way: Callable[[], None] = lambda: None,
        metrics: metrics.Metrics | None = None,
        hand_over: Callable[[float, bool], None] = lambda now, last: None,
        rss: Callable[[], int] = lambda: 0,
        changed: Callable[[], str | None] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._work = work
        self._send = send
        self._make_way = make_way
        self._metrics = metrics or Fanout()
        self._hand_over = hand_over
        self._rss = rss
        self._changed = changed
        self._grace = float(bootstrap.config["grace"])
        self._stopping: threading.Thread | None = None
        self._give_up_at = math.inf
        self._clean = False
        self._empty = False
        self._next_look = -math.inf

    def step(self, now: float, messages: list[Message], *, terminated: bool) -> bool | None:
        """Do what there is to do at *now* (monotonic).

        Returns:
            None while there is work; then whether it ended with nothing running.
        """
        for message in messages:
            self._hear(message, now)
        if terminated:
            self._stop(now, self._grace)
        self._hand_over(now, False)
        if self._stopping is None:
            self._look_around(now)
        elif not self._stopping.is_alive() or now >= self._give_up_at:
            clean = self._clean and not self._stopping.is_alive()
            self._hand_over(now, True)
            if clean and self._empty:
                self._send(Empty())
            self._send(Stopped(clean))
            return clean
        return None

    def _hear(self, message: Message, now: float) -> None:
        match message:
            case Stop():
                self._stop(now, message.grace)
            case Count():
                for name, value, tags in message.increments:
                    self._metrics.increment(name, value, tags)
                for name, number, tags in message.gauges:
                    self._metrics.gauge(name, number, tags)
            case Dump():
                self._work.dump()
            case NewSession():
                self._work.new_session(Session(message.id, message.epoch))
            case _:
                logger.warning("the supervisor sent %s; ignored", type(message).__name__)

    def _look_around(self, now: float) -> None:
        bootstrap = self._bootstrap
        processed = self._work.statistics().processed
        if bootstrap.max_jobs is not None and processed >= bootstrap.max_jobs:
            self._leave(now, f"it has run {processed} jobs (max-jobs {bootstrap.max_jobs})")
        elif bootstrap.until_empty and self._nothing_left():
            self._empty = True
            self._stop(now, self._grace)
        elif now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            # One that is too large from the start must not be replaced for ever.
            if bootstrap.max_rss is not None and processed and self._rss() > bootstrap.max_rss:
                self._leave(now, f"it uses more than {bootstrap.max_rss:,} bytes (max-rss)")
            elif self._changed is not None and (path := self._changed()):
                self._leave(now, f"{path} has changed", self._grace)

    def _nothing_left(self) -> bool:
        try:
            return self._work.is_empty()
        except BrokerError as error:
            logger.debug("cannot tell whether anything is left: %s", error)
            return False

    def _leave(self, now: float, reason: str, grace: float = math.inf) -> None:
        """Make way for a successor; what runs is not hurried unless *grace* says so."""
        self._make_way()
        self._send(Leaving(reason))
        self._stop(now, grace)

    def _stop(self, now: float, grace: float) -> None:
        if self._stopping is None:
            self._stopping = threading.Thread(target=self._run_stop, args=(grace,), daemon=True)
            self._stopping.start()
        elif now + grace < self._give_up_at:
            # It drains without haste already; the process then ends under what still runs,
            # and the supervisor gives that back.
            self._give_up_at = now + grace

    def _run_stop(self, grace: float) -> None:
        self._clean = self._work.stop(grace)


def main(fd: int) -> int:
    """Be a child on the control line *fd*; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: terminated.set())
    asked = threading.Event()
    signal.signal(signal.SIGUSR1, lambda _number, _frame: asked.set())
    channel = Channel(socket.socket(fileno=fd))
    early: list[Message] = []
    bootstrap = _first(channel, early)
    die_with(bootstrap.supervisor)
    outlet.unblock()
    logs.set_up(bootstrap.log_level, bootstrap.log_format, f"worker-{bootstrap.index + 1}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        numbers = _Numbers(bootstrap, channel)
        broker, runner, backends = _build(bootstrap, channel, numbers)
        early += channel.receive()
        if terminated.is_set() or any(isinstance(message, Stop) for message in early):
            channel.send(Stopped(clean=True))
            return 0
        # Before the first job: what is written from then on is a change.
        changed = SourceWatch().changed if bootstrap.reload else None
        # Whatever is there now stays for good: the collector need not look at it, again and again,
        # while jobs run. Source: a tenth of the CPU of a no-op job, in turns with and without.
        gc.collect()
        gc.freeze()
        _start(runner)
    except _CannotBegin as problem:
        logger.error("%s", problem.text)
        channel.send(Fatal(problem.exit_code, problem.text))
        return problem.exit_code
    channel.send(Ready())
    duty = Duty(
        bootstrap,
        runner,
        send=channel.send,
        make_way=lambda: _make_way(backends),
        metrics=numbers.backends,
        hand_over=numbers.hand_over,
        rss=_rss,
        changed=changed,
    )
    clean = None
    messages = early
    while clean is None:
        messages += channel.receive(LISTEN_SECONDS)
        if channel.closed:
            os._exit(1)
        if asked.is_set():
            asked.clear()
            runner.dump()
        clean = duty.step(time.monotonic(), messages, terminated=terminated.is_set())
        messages = []
    _close(backends)
    if not clean:
        _end_hard(0)
    broker.close()
    return 0


def _first(channel: Channel, early: list[Message]) -> Bootstrap:
    """Wait for the bootstrap; what came with it goes to *early*."""
    while not channel.closed:
        messages = channel.receive(60.0)
        if messages and isinstance(messages[0], Bootstrap):
            early += messages[1:]
            return messages[0]
    os._exit(1)


class _CannotBegin(Exception):
    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.text = text


class _Numbers:
    """What this process counts, on its way to the supervisor."""

    def __init__(self, bootstrap: Bootstrap, channel: Channel) -> None:
        self.gathered = Handover(on_many=self._send)
        self.backends = Fanout()
        """What counts here, for what the supervisor has to tell."""
        self._shown = bootstrap.hand_over
        self._channel = channel
        self._next_registry = -math.inf

    def hand_over(self, now: float, last: bool) -> None:
        """Hand over what is new; at the *last* call all there is. For the main thread."""
        self._send()
        if self._shown and (last or now >= self._next_registry):
            self._next_registry = now + REGISTRY_SECONDS
            families = foreign.families()
            if families:
                self._channel.send(Registry(families))

    def _send(self) -> None:
        """Hand over what is new; also called by the settling thread, while many jobs end."""
        self.gathered.hand_over(lambda changes: self._channel.send(Numbers(changes)))


def _build(
    bootstrap: Bootstrap, channel: Channel, numbers: _Numbers
) -> tuple[Broker, Runner, list[metrics.Metrics]]:
    """Return what works, not started yet, and the backends that were made for it."""
    # Where the worker takes jobs from is where its jobs put jobs, whether a flag said so or a
    # file, unless the application says otherwise in code.
    os.environ["GOOSE_BROKER"] = bootstrap.broker
    try:
        offer = Offer(bootstrap.modules)
        offer.load()
    except ConfigError as error:
        raise _CannotBegin(MODULES, str(error)) from error
    notes = None if bootstrap.notes is None else Notes.attach(bootstrap.notes)
    try:
        broker = brokers.connect(bootstrap.broker)
        specs = [spec for spec in bootstrap.metrics if not is_served(spec)]
        backends = [metrics.connect(spec, index=bootstrap.index) for spec in specs]
        guarded = [detached(backend) for backend in backends]
        pairs = zip(specs, backends, strict=True)
        made = [backend for spec, backend in pairs if metrics.is_made_for(spec, backend)]
        runner = Runner(
            broker,
            offer,
            config_from(bootstrap.config),
            middleware=[middleware.connect(spec) for spec in bootstrap.middleware],
            metrics=[*guarded, numbers.gathered] if bootstrap.hand_over else guarded,
            gauges=numbers.gathered if bootstrap.metrics or bootstrap.hand_over else None,
            resources=[connect_resource(spec) for spec in bootstrap.resources],
            # After the modules, which may configure a store.
            firing=crons.firing(broker, offer, settings.active(), bootstrap.broker),
            session=Session(bootstrap.session, bootstrap.epoch),
            notes=notes,
            beats=False,
            on_tick=lambda now: _tick(notes, now, runner.contact_mono),
            on_session_lost=lambda: _tell(channel, Refused()),
            on_death=_end_after_death,
        )
    except Exception as error:
        raise _judged(error) from error
    numbers.backends = Fanout(guarded)
    return broker, runner, made


def _start(runner: Runner) -> None:
    try:
        runner.start()
    except Exception as error:
        raise _judged(error) from error


def _judged(error: Exception) -> _CannotBegin:
    """Return what the supervisor is told about *error*, which came up before the first job."""
    if isinstance(error, BrokerError):
        return _CannotBegin(BROKER, f"broker: {error}")
    if isinstance(error, GooseError):
        return _CannotBegin(SETTINGS, str(error))
    logger.error("a worker process cannot begin", exc_info=error)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return _CannotBegin(OTHER, f"{type(error).__name__}: {error}{notes}")


def config_from(fields: Mapping[str, Any]) -> WorkerConfig:
    """Return the `WorkerConfig` in a bootstrap."""
    values: dict[str, Any] = dict(fields)
    values["queues"] = tuple(Share(name, weight) for name, weight in fields["queues"])
    return WorkerConfig(**values)


def _tick(notes: Notes | None, now: float, contact: float) -> None:
    if notes is not None:
        notes.tick(now)
        notes.contact(contact)


def _tell(channel: Channel, message: Message) -> None:
    channel.send(message)


def _make_way(backends: list[metrics.Metrics]) -> None:
    for backend in backends:
        close = getattr(backend, "close", None)
        if getattr(backend, "port", None) is not None and close is not None:
            close()


def _close(backends: list[metrics.Metrics]) -> None:
    """Let what was made from names send its last numbers, as long as that takes no time."""
    closing = threading.Thread(target=Fanout(backends).close, daemon=True)
    closing.start()
    closing.join(LAST_NUMBERS)


def _rss() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _end_after_death(error: BaseException) -> None:
    """End the process: without that thread it only holds jobs back from others."""
    logger.critical("ending the process, because a thread of the engine died of %r", error)
    _end_hard(1)


def _end_hard(code: int) -> NoReturn:
    """End under what still runs, which no ordinary exit could wait for."""
    logging.shutdown()
    outlet.farewell()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
