"""What can be done to a PostgreSQL server while workers use it.

Each fault is a function of an `Arena`. It returns when the fault is over: the server accepts
connections and statements again. Faults of the network are Redis's campaign's, but that who
keeps connections for long notices a refusal only when they end.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from goose.testing.proxy import Proxy
from tests.chaos import redis_faults
from tests.servers.postgres import PostgresServer

CONFIG = {"max_connections": "120", "superuser_reserved_connections": "0"}


@dataclass(slots=True)
class Arena:
    """What a fault can reach."""

    server: PostgresServer
    proxy: Proxy
    chance: random.Random
    hold: float
    """Seconds for which a fault lasts that may last."""

    def wait(self) -> None:
        """Let the fault go on."""
        time.sleep(self.hold * self.chance.uniform(0.5, 1.5))


Act = Callable[[Arena], None]


def crash(arena: Arena) -> None:
    """An immediate stop, which leaves recovery to the next start, a moment later."""
    arena.wait()
    arena.server.kill()
    arena.wait()
    arena.server.start()


def stop_cleanly(arena: Arena) -> None:
    """A stop that ends all sessions in good order, and a start a moment later."""
    arena.server.stop()
    arena.wait()
    arena.server.start()


def crash_a_backend(arena: Arena) -> None:
    """SIGKILL of one backend, for which the server throws everybody out and recovers."""
    _, backends = _processes(arena)
    os.kill(arena.chance.choice(backends), signal.SIGKILL)
    arena.wait()
    arena.server.wait_until_up()


def freeze(arena: Arena) -> None:
    """All its processes stand still: connections stay open and nobody answers."""
    everything, _ = _processes(arena)
    for pid in everything:
        _signal(pid, signal.SIGSTOP)
    arena.wait()
    for pid in everything:
        _signal(pid, signal.SIGCONT)


def _processes(arena: Arena) -> tuple[list[int], list[int]]:
    """Return all processes of the server, and those of clients."""
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE '%jobs%'"
    backends = [pid for (pid,) in arena.server.execute(query)]
    assert arena.server.process is not None
    pid = arena.server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)], [b for b in backends if str(b) in children]


def _signal(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def _at_20_hz(function: str) -> Act:
    query = (
        f"SELECT {function}(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.5"
    )

    def act(arena: Arena) -> None:
        with arena.server.connect() as admin:
            end = time.monotonic() + 2 * arena.hold
            while time.monotonic() < end:
                admin.execute(query.encode())
                time.sleep(0.05)

    return act


def read_only(arena: Arena) -> None:
    """It takes no writes, and is no primary to who connects: as in a failover."""
    with arena.server.connect(options="-c default_transaction_read_only=off") as admin:
        admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        admin.execute("SELECT pg_reload_conf()")
        arena.wait()
        admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        admin.execute("SELECT pg_reload_conf()")


def lock_table(arena: Arena) -> None:
    """Somebody locks the table of the jobs, as careless migrations do."""
    with arena.server.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE goose.jobs")
        arena.wait()


def vacuum_full(arena: Arena) -> None:
    """The table is written anew, so that every row is elsewhere, five times."""
    with arena.server.connect() as admin:
        for _ in range(5):
            admin.execute("VACUUM FULL goose.jobs")
            time.sleep(0.1)


def too_many_clients(arena: Arena) -> None:
    """Every connection is ended, and others take all that there may be."""
    with contextlib.ExitStack() as stack:
        held: list[psycopg.Connection[Any]] = []
        end = time.monotonic() + arena.hold
        while time.monotonic() < end:
            try:
                held.append(stack.enter_context(arena.server.connect()))
            except psycopg.OperationalError:
                with contextlib.suppress(psycopg.Error):
                    held[0].execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = 'goose'"
                    )
                time.sleep(0.02)


def long_snapshot(arena: Arena) -> None:
    """A transaction elsewhere keeps its snapshot, so that nothing can be cleaned up."""
    with arena.server.connect(autocommit=False) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        arena.wait()


SERVER: Mapping[str, Act] = {
    "crash": crash,
    "stop and start": stop_cleanly,
    "crash of a backend": crash_a_backend,
    "freeze": freeze,
    "terminate, 20 Hz": _at_20_hz("pg_terminate_backend"),
    "cancel, 20 Hz": _at_20_hz("pg_cancel_backend"),
    "read-only": read_only,
    "table locked": lock_table,
    "VACUUM FULL": vacuum_full,
    "too many clients": too_many_clients,
    "held snapshot": long_snapshot,
}


def _refuse(arena: Arena) -> None:
    """Connections end, and new ones are refused."""
    redis_faults.reset(arena)
    arena.proxy.refuse()
    arena.wait()
    arena.proxy.heal()


NETWORK: Mapping[str, Act] = {
    **redis_faults.NETWORK,
    "refuse": _refuse,
}
