"""``goose outbox``: the table from which jobs are moved to a broker, and the relay that moves them."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from goose import brokers, metrics, settings
from goose.brokers.base import Capability
from goose.cli.choosing import place
from goose.cli.showing import lasting, print_json, print_table
from goose.errors import BrokerUnavailable, ConfigError, Unsupported
from goose.features.outbox import Database, Figures, Relay, Table, table_for
from goose.metrics.fanout import Fanout
from goose.settings import Settings
from goose.worker import logs
from goose.worker.clock import SystemClock
from goose.worker.loops import Loop

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("goose.outbox")
LAST_SECONDS = 5.0
"""Seconds a relay that is told to stop may take for what it is just doing."""


@click.group("outbox")
def command() -> None:
    """Make, look at and empty an outbox: jobs that wait in a database to be moved to the broker.

    \b
    Ends with
      0    done                      1    anything else
      2    a setting is wrong
      4    database or broker cannot be reached, or refuse
    """  # noqa: D301 - \b is click's mark for text to keep as it is


def _choosing(verb: F) -> F:
    for option in (
        click.option("--broker", metavar="URL", help="Where the jobs go.  [as configured]"),
        click.option("--outbox", metavar="URL", help="Where they come from.  [as configured]"),
        click.option("--table", metavar="NAME", help="Name of the table.  [goose_outbox]"),
    ):
        verb = option(verb)
    return verb


def _chosen(broker: str | None, outbox: str | None, table: str | None) -> Settings:
    chosen = settings.load()
    given = {"broker": broker, "outbox": outbox, "outbox_table": table}
    for name, value in given.items():
        if value is not None:
            chosen = settings.with_given(chosen, {name: value}, "--")
    return chosen


@contextmanager
def _table(chosen: Settings) -> Iterator[Table]:
    if chosen.outbox is None:
        raise ConfigError(
            "no outbox is named: give --outbox URL, GOOSE_OUTBOX, or outbox in goose.toml, for "
            "example postgresql://host/db"
        )
    database = Database(chosen.outbox)
    try:
        yield Table(database, table_for(chosen.outbox_table, chosen.broker))
    finally:
        database.close()


@command.command("migrate")
@click.option("--sql", is_flag=True, help="Print the statements instead; nothing is connected.")
@_choosing
def migrate(*, sql: bool, broker: str | None, outbox: str | None, table: str | None) -> None:
    """Make the tables of an outbox; harmless where they are."""
    with _table(_chosen(broker, outbox, table)) as found:
        if sql:
            for statement in found.migration():
                click.echo(f"{statement};")
            return
        found.migrate()
        click.echo(f"{found.database.place}: the table {found.name} is there", err=True)


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@_choosing
def status(*, as_json: bool, broker: str | None, outbox: str | None, table: str | None) -> None:
    """Show what waits to be moved: how many jobs of each queue, and for how long.

    With --json: queue, waiting, refused, oldest_seconds, problem.
    """
    with _table(_chosen(broker, outbox, table)) as found:
        figures = found.figures()
    if as_json:
        print_json([_fields(each) for each in figures])
    elif figures:
        print_table([_row(each) for each in figures])
    else:
        click.echo("nothing waits in the outbox", err=True)


@command.command("relay")
@click.option("--until-empty", is_flag=True, help="End when nothing is left to be moved.")
@_choosing
def relay(*, until_empty: bool, broker: str | None, outbox: str | None, table: str | None) -> None:
    """Move jobs from the outbox to the broker, until stopped by TERM or INT.

    Any number may run; one at a time moves a queue. A worker whose configuration names an outbox
    does the same beside its jobs.
    """
    chosen = _chosen(broker, outbox, table)
    logs.set_up(chosen.log_level, chosen.log_format, "relay")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    backends = Fanout([metrics.connect(spec) for spec in chosen.metrics])
    target = brokers.connect(chosen.broker)
    if Capability.SHARED not in target.capabilities:
        raise Unsupported(
            f"{place(chosen)} lives inside one process, so jobs that are moved there would be gone "
            "with this one; name another broker"
        )
    try:
        with _table(chosen) as found:
            click.echo(f"moving jobs from {found.database.place} to {place(chosen)}", err=True)
            mover = Relay(target, found, metrics=backends, lease=chosen.ttl)
            try:
                _run(mover, found, stopped, chosen, until_empty=until_empty)
            finally:
                mover.close()
    finally:
        backends.close()
        target.close()


def _wait_for(table: Table, seconds: float, stopped: threading.Event) -> None:
    """Return once the database answers; what is wrong for good is said at once."""
    deadline = time.monotonic() + seconds
    while not stopped.is_set():
        try:
            table.queues()
            return
        except BrokerUnavailable:
            if time.monotonic() > deadline:
                raise
            stopped.wait(0.5)


def _run(
    mover: Relay,
    table: Table,
    stopped: threading.Event,
    chosen: Settings,
    *,
    until_empty: bool,
) -> None:
    broken: list[BaseException] = []

    def step(now: float) -> float:
        pause = mover.step(now)
        if until_empty and pause and not table.figures():
            stopped.set()
        return pause

    def died(error: BaseException) -> None:
        broken.append(error)
        stopped.set()

    _wait_for(table, chosen.wait_broker, stopped)
    loop = Loop("outbox", step, clock=SystemClock(), random=random.Random(), on_death=died)
    loop.start()
    while not stopped.wait(0.2):
        continue
    loop.stop()
    if not loop.join(LAST_SECONDS):
        logger.warning("the relay ends in the middle of a move; what was not confirmed is kept")
    if broken:
        raise broken[0]


def _fields(figures: Figures) -> dict[str, object]:
    return {
        "queue": figures.queue,
        "waiting": figures.waiting,
        "refused": figures.refused,
        "oldest_seconds": round(figures.oldest, 3),
        "problem": figures.problem,
    }


def _row(figures: Figures) -> dict[str, object]:
    return {
        "queue": figures.queue,
        "waiting": f"{figures.waiting:,}",
        "refused": f"{figures.refused:,}",
        "oldest": lasting(figures.oldest),
        "problem": figures.problem or "",
    }
