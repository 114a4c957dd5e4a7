"""One worker process of a supervisor: ``python -m goose.worker.child FD``.

It reads its `Bootstrap` from the control line, builds broker, offer and `Runner`, and says
`Ready`. From then on the main thread only listens and does its `Duty`; jobs run on others.

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
from typing import Any, NoReturn

from goose import brokers, metrics, middleware, settings
from goose.brokers import dangers
from goose.brokers.base import Broker, Session, Share
from goose.calls import Offer
from goose.errors import BrokerError, ConfigError, GooseError
from goose.metrics import foreign
from goose.metrics.detached import detached
from goose.metrics.fanout import Fanout
from goose.metrics.handover import Handover
from goose.metrics.served import is_served
from goose.stores import OnDemand
from goose.worker import crons, logs, outlet
from goose.worker.config import WorkerConfig
from goose.worker.control import (
    Bootstrap,
    Channel,
    Fatal,
    Message,
    Numbers,
    Ready,
    Refused,
    Registry,
    Stop,
    Stopped,
    die_with,
)
from goose.worker.duty import Duty
from goose.worker.embedded import connect_resource, store_of
from goose.worker.follower import Follower, follower
from goose.worker.notes import Notes
from goose.worker.outboxes import relay_of
from goose.worker.reload import SourceWatch
from goose.worker.runner import Runner

logger = logging.getLogger("goose.worker.child")

LISTEN_SECONDS = 0.1
"""Longest wait for a message before other reasons to act are looked at."""
LAST_NUMBERS = 0.6
"""Seconds that metrics backends have at the end."""
REGISTRY_SECONDS = 2.0
"""Between two times that the user's own measures are handed over."""
SETTINGS, MODULES, BROKER, OTHER = 2, 3, 4, 1
"""Exit codes of what can go wrong at the start."""


def main(fd: int) -> int:
    """Be a child on the control line *fd*; return the exit code."""
    signals = _Signals()
    channel = Channel(socket.socket(fileno=fd))
    early: list[Message] = []
    bootstrap = _first(channel, early)
    _settle_in(bootstrap)
    try:
        numbers = _Numbers(bootstrap, channel)
        broker, runner, backends = _build(bootstrap, channel, numbers)
        early += channel.receive()
        if signals.terminated.is_set() or any(isinstance(message, Stop) for message in early):
            channel.send(Stopped(clean=True))
            return 0
        # Before the first job: what is written from then on is a change.
        changed = SourceWatch().changed if bootstrap.reload else None
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
    clean = _listen(channel, duty, signals, runner.dump, early)
    _close(backends)
    if not clean:
        _end_hard(0)
    broker.close()
    return 0


class _Signals:
    """What arrived so far; handlers only note it. To be made on the main thread."""

    def __init__(self) -> None:
        self.terminated = threading.Event()
        self.asked = threading.Event()
        """Somebody wants to know what runs."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.terminated.set())
        signal.signal(signal.SIGUSR1, lambda _number, _frame: self.asked.set())


def _settle_in(bootstrap: Bootstrap) -> None:
    """Make this process what the supervisor wants it to be, before anything is imported."""
    die_with(bootstrap.supervisor)
    outlet.unblock()
    logs.set_up(bootstrap.log_level, bootstrap.log_format, f"worker-{bootstrap.index + 1}")
    dangers.note(bootstrap.told)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _listen(
    channel: Channel,
    duty: Duty,
    signals: _Signals,
    dump: Callable[[], None],
    messages: list[Message],
) -> bool:
    """Do the duty until it is over, *messages* first; say whether nothing runs any more."""
    while True:
        messages += channel.receive(LISTEN_SECONDS)
        if channel.closed:
            os._exit(1)
        if signals.asked.is_set():
            signals.asked.clear()
            dump()
        clean = duty.step(time.monotonic(), messages, terminated=signals.terminated.is_set())
        if clean is not None:
            return clean
        messages = []


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
        # After the modules, which may configure a store.
        chosen = settings.active()
        store = store_of(chosen, broker, bootstrap.broker)
        runner = Runner(
            broker,
            offer,
            config_from(bootstrap.config),
            middleware=[middleware.connect(spec) for spec in bootstrap.middleware],
            metrics=[*guarded, numbers.gathered] if bootstrap.hand_over else guarded,
            gauges=numbers.gathered if bootstrap.metrics or bootstrap.hand_over else None,
            resources=[connect_resource(spec) for spec in bootstrap.resources],
            firing=crons.firing(broker, offer, chosen, store),
            store=store,
            follower=_follower(store, bootstrap, channel),
            circuits=chosen.circuit,
            # One process of a worker does it for all of them.
            relay=None if bootstrap.index else relay_of(broker, chosen, bootstrap.broker),
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


def _follower(store: OnDemand, bootstrap: Bootstrap, channel: Channel) -> Follower | None:
    return follower(
        store,
        supervisor=bootstrap.supervisor,
        processes=bootstrap.processes,
        tell=channel.send,
        logger_name="",
    )


def _start(runner: Runner) -> None:
    # Whatever is there now stays for good: the collector need not look at it, again and again,
    # while jobs run. Source: a tenth of the CPU of a no-op job, in turns with and without.
    gc.collect()
    gc.freeze()
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
