"""Runs a `Supervisor` in this process: real children, real signals, real time.

One thread, the main one, steps the supervisor. It sleeps until something happens: a signal
arrives (Python's wake-up descriptor; handlers themselves do nothing, so no storm of signals
can meet a lock), a child says something or ends, an errand comes back, or a moment has
passed. Broker calls run as errands on a thread of their own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager

from goose import brokers
from goose.brokers import dangers
from goose.brokers.base import Broker, Capability, Session
from goose.errors import ConfigError, Unsupported
from goose.metrics.served import address, is_served
from goose.settings import Settings
from goose.worker.clock import SystemClock
from goose.worker.control import Bootstrap
from goose.worker.embedded import config_of
from goose.worker.errands import ThreadErrands
from goose.worker.heartbeat import HeartbeatFile
from goose.worker.observer import Observer
from goose.worker.plan import RESTART_LIMIT, Plan, Tools
from goose.worker.process import CHILD, ChildProcess, Process
from goose.worker.serving import Server
from goose.worker.supervisor import Supervisor
from goose.worker.systemd import Notifier

logger = logging.getLogger("goose.worker.host")

LOOK_SECONDS = 0.25
"""Between two steps when nothing happens; hard timeouts are as precise as that."""
RELOAD_RESTART_LIMIT = 2.0
"""Seconds between restarts at most while somebody edits the source."""
LAST_SECONDS = 0.5
"""Seconds to wait for killed children, and then for the broker to close, at the end."""


def run(
    chosen: Settings,
    *,
    until_empty: bool = False,
    reload: bool = False,
    program: tuple[str, ...] = CHILD,
) -> int:
    """Supervise the worker processes that *chosen* describes; return the exit code.

    Call it in the main thread of a process that exists for it: it takes over the signals
    ``SIGTERM``, ``SIGINT``, ``SIGCHLD`` and ``SIGUSR1``, and leaves the first two ignored.

    Args:
        chosen: Broker, modules (`Settings.allow`) and all the rest.
        until_empty: End when nothing is ready or running.
        reload: Replace the children when their source changes.
        program: What Python runs as a child; for tests.

    Raises:
        ConfigError: The broker's URL or a setting is wrong.
        Unsupported: The broker lives in one process only.
    """
    broker = _connect(chosen)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        plan = Plan(
            processes=chosen.processes,
            grace=chosen.grace,
            ttl=chosen.ttl,
            stall_limit=chosen.stall_limit,
            wait_broker=chosen.wait_broker,
            restart_limit=RELOAD_RESTART_LIMIT if reload else RESTART_LIMIT,
        )
        errands = ThreadErrands(lambda: _wake(theirs))
        observer, servers = _observer(chosen, broker, lambda: _wake(theirs))
        spawn = _spawner(chosen, until_empty=until_empty, reload=reload, program=program)
        tools = Tools(broker, spawn, errands, SystemClock(), random.Random(), observer, _log_by())
        supervisor = Supervisor(plan, tools)
        with _signals(theirs.fileno()):
            code = _loop(supervisor, observer, ours, min(LOOK_SECONDS, chosen.ttl / 24))
            _end_children(supervisor)
            observer.close()
            for server in servers:
                server.close()
            wait([errands(broker.close)], timeout=LAST_SECONDS)
    return code


def _connect(chosen: Settings) -> Broker:
    if not isinstance(chosen.broker, str):
        raise ConfigError(
            f"broker is a {type(chosen.broker).__name__}, but worker processes need its URL"
        )
    config_of(chosen)  # complains of what no child could work with
    broker = brokers.connect(chosen.broker)
    if Capability.SHARED not in broker.capabilities:
        raise Unsupported(
            f"{brokers.redact(chosen.broker)} lives inside one process, so no worker process can "
            "share it; use goose.Worker in that process, or another broker"
        )
    return broker


def _observer(
    chosen: Settings, broker: Broker, wake: Callable[[], None]
) -> tuple[Observer, list[Server]]:
    """Return what shows this supervisor to others, and where it does.

    Raises:
        ConfigError: An address is wrong or taken.
    """
    observer = Observer(
        broker,
        chosen.worker_queues,
        # Of its own: a measurement that takes long must not hold up a heartbeat.
        submit=ThreadErrands(wake),
        heartbeat=HeartbeatFile(chosen.heartbeat_file),
        notifier=Notifier(),
        stall_limit=chosen.stall_limit,
        measures=bool(chosen.metrics) or chosen.health is not None,
        clock=SystemClock(),
    )
    places = [address(spec) for spec in chosen.metrics if is_served(spec)]
    if chosen.health is not None:
        host, _, number = chosen.health.rpartition(":")
        places.append((host.strip("[]"), int(number)))
    servers: list[Server] = []
    try:
        for host, port in places:
            if port is not None:
                servers.append(Server(host, port, observer.routes))
                logger.info("serving /metrics, /livez and /readyz on %s:%d", host, servers[-1].port)
    except BaseException:
        for server in servers:
            server.close()
        raise
    return observer, servers


def _spawner(
    chosen: Settings, *, until_empty: bool, reload: bool, program: tuple[str, ...]
) -> Callable[[int, Session], Process]:
    config = config_of(chosen)
    fields = {
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
        "queues": [(share.queue, share.weight) for share in config.queues],
    }

    def spawn(index: int, session: Session) -> Process:
        def bootstrap(notes: int) -> Bootstrap:
            return Bootstrap(
                supervisor=os.getpid(),
                broker=str(chosen.broker),
                modules=chosen.allow,
                config=fields,
                session=session.id,
                epoch=session.epoch,
                notes=notes,
                middleware=chosen.middleware,
                metrics=chosen.metrics,
                resources=chosen.resources,
                max_jobs=chosen.max_jobs,
                max_rss=chosen.max_rss,
                reload=reload,
                until_empty=until_empty,
                log_level=chosen.log_level,
                log_format=chosen.log_format,
                index=index,
                processes=chosen.processes,
                hand_over=chosen.health is not None or any(map(is_served, chosen.metrics)),
                told=dangers.told(),
            )

        return ChildProcess(bootstrap, config.slots, program)

    return spawn


def _log_by() -> Callable[[str | None], object]:
    """Return what has this process log by another level; None is the one it has now."""
    root = logging.getLogger()
    own = root.level
    return lambda level: root.setLevel(own if level is None else level.upper())


def _loop(
    supervisor: Supervisor, observer: Observer, wakeups: socket.socket, look_seconds: float
) -> int:
    while True:
        now = time.monotonic()
        code = supervisor.step(now)
        observer.step(supervisor, now)
        if code is not None:
            return code
        poll = select.poll()
        poll.register(wakeups, select.POLLIN)
        for charge in supervisor.charges:
            process = charge.process
            if charge.alive and isinstance(process, ChildProcess) and not process.closed:
                poll.register(process, select.POLLIN)
        poll.poll(look_seconds * 1000)
        for signum in _drain(wakeups):
            if signum in (signal.SIGTERM, signal.SIGINT):
                supervisor.interrupt(signum)
            elif signum == signal.SIGUSR1:
                supervisor.dump()


def _wake(theirs: socket.socket) -> None:
    try:
        theirs.send(b"\0")
    except OSError:
        return  # full, so it is awake; or closed, so it is over


def _drain(wakeups: socket.socket) -> bytes:
    try:
        return wakeups.recv(4096)
    except BlockingIOError:
        return b""


def _end_children(supervisor: Supervisor) -> None:
    """See to it that no child outlives this process."""
    supervisor.kill(time.monotonic())
    deadline = time.monotonic() + LAST_SECONDS
    for charge in supervisor.charges:
        process = charge.process
        while process is not None and process.exit_code() is None and time.monotonic() < deadline:
            time.sleep(0.01)


@contextmanager
def _signals(wakeup_fd: int) -> Iterator[None]:
    """Have signals written to *wakeup_fd*, and nothing else done about them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        # The exit code is decided; one more signal must not replace it by its own.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
