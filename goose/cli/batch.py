"""``goose batch``: jobs that belong together, how far they are, and what to do with them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import click

from goose.batching import Batch
from goose.cli.choosing import common, configured, confirm, opened, place, sure
from goose.cli.showing import lasting, print_json, print_table
from goose.features.batches.records import Progress, Record

F = TypeVar("F", bound=Callable[..., Any])
BAR = 40
"""Characters of a progress bar."""
NOTABLE = ("retrying", "dead", "cancelled", "deleted", "skipped")
"""Kinds of members that a progress bar tells, if there are any."""
LOOK = 0.5
"""Seconds between two looks of ``watch``."""


@click.group("batch")
def command() -> None:
    """List, show, watch, cancel and delete batches.

    They are made by goose.batch(…) in code, and are named here by their name or id.

    \b
    Ends with
      0    done                      1    anything else; of watch: not all were done
      2    there is no such batch, or a setting is wrong
      4    the broker or the store cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


def _naming(verb: F) -> F:
    return click.argument("batch")(common(verb))


@contextmanager
def _found(broker: str | None, wanted: str) -> Iterator[tuple[Batch, Record]]:
    with opened(broker, "batches", kept=True) as client:
        record = client.batches.found(wanted)
        yield Batch(client, record), record


@command.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=100, help="So many.  [100]")
@common
def list_(*, limit: int, broker: str | None, as_json: bool) -> None:
    """List batches, the newest last, with how far each is."""
    with opened(broker, "batches", kept=True) as client:
        batches = client.batches
        found = [(record, batches.progress(record)) for record in islice(batches.records(), limit)]
    if as_json:
        print_json([_fields(*each) for each in found])
    elif found:
        print_table([_row(*each) for each in found])
    else:
        click.echo(f"there is no batch at {place(configured(broker))}", err=True)


@command.command("show")
@_naming
def show(*, batch: str, broker: str | None, as_json: bool) -> None:
    """Show all there is of one batch."""
    with _found(broker, batch) as (handle, record):
        fields = _fields(record, handle.progress())
    if as_json:
        print_json([fields])
        return
    width = max(map(len, fields))
    for key, value in fields.items():
        if value not in (None, "", 0, [], False) or key in ("total", "remaining"):
            click.echo(f"{key:<{width}}  {', '.join(value) if isinstance(value, list) else value}")


@command.command("watch")
@click.option("--timeout", type=float, help="Give up after so many seconds.")
@_naming
def watch(*, batch: str, timeout: float | None, broker: str | None, as_json: bool) -> None:
    """Draw how far a batch is, until it has ended.

    Ends with 0 if all members were done or skipped, else with 1.
    """
    end_mono = None if timeout is None else time.monotonic() + timeout
    with _found(broker, batch) as (handle, record):
        while True:
            progress = handle.progress()
            if not as_json:
                _draw(record, progress)
            over = end_mono is not None and time.monotonic() >= end_mono
            if progress.status is not None or over:
                break
            time.sleep(LOOK)
    if as_json:
        print_json([_fields(record, progress)])
    elif sys.stdout.isatty():
        click.echo()
    sys.exit(0 if progress.status == "success" else 1)


@command.command("cancel")
@sure
@_naming
def cancel(*, batch: str, yes: bool, broker: str | None, as_json: bool) -> None:
    """End the members that have not started; those that run are left alone."""
    with _found(broker, batch) as (handle, record):
        confirm(f"Cancel what has not started of batch {record.label}?", yes=yes)
        handle.cancel()
        _tell(handle, record, "is cancelled", as_json=as_json)


@command.command("delete")
@sure
@_naming
def delete(*, batch: str, yes: bool, broker: str | None, as_json: bool) -> None:
    """Forget a batch: its members run on, and no callback comes."""
    with _found(broker, batch) as (handle, record):
        confirm(f"Delete batch {record.label}? Its members run on.", yes=yes)
        progress = handle.progress()
        handle.delete()
    if as_json:
        print_json([_fields(record, progress)])
    else:
        click.echo(f"{record.label} is deleted")


def _tell(handle: Batch, record: Record, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json([_fields(record, handle.progress())])
    else:
        click.echo(f"{record.label} {what}")


def _draw(record: Record, progress: Progress) -> None:
    """Draw one line over the one before; where nobody watches, a line of its own."""
    share = progress.ended / progress.total if progress.total else float(not progress.is_open)
    filled = round(BAR * share)
    counts = ((name, getattr(progress, name)) for name in NOTABLE)
    parts = [
        f"{progress.ended:,}/{progress.total:,}",
        *(f"{count:,} {name}" for name, count in counts if count),
        progress.status or ("open" if progress.is_open else f"{share:.0%}"),
    ]
    line = f"{record.label} [{'#' * filled}{'.' * (BAR - filled)}] {', '.join(parts)}"
    if sys.stdout.isatty():
        click.echo(f"\r\x1b[K{line}", nl=False)
    else:
        click.echo(line)


def _fields(record: Record, progress: Progress) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "opened": _moment(record.opened_at),
        "ended": _moment(record.ended_at),
        "cancelled_at": _moment(record.cancelled_at),
        "linger": record.linger,
        "callbacks": list(record.on),
        **progress.fields(),
    }


def _row(record: Record, progress: Progress) -> dict[str, object]:
    return {
        "batch": record.label,
        "total": f"{progress.total:,}",
        "remaining": f"{progress.remaining:,}",
        "retrying": f"{progress.retrying:,}",
        "done": f"{progress.done:,}",
        "dead": f"{progress.dead:,}",
        "": progress.status or ("open" if progress.is_open else "runs"),
        "since": lasting(max(0.0, time.time() - record.opened_at)),
    }


def _moment(epoch: float | None) -> str | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat()
