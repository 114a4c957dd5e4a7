"""``goose cron``: the entries that make jobs by the clock, and what to do with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from goose.cli.choosing import common, configured, confirm, opened, place, sure
from goose.cli.showing import lasting, print_json, print_table, printable
from goose.features.crons import Cron, Crons

F = TypeVar("F", bound=Callable[..., Any])
NEXT = 5
"""Instants that ``show`` tells if nobody says how many."""


@click.group("cron")
def command() -> None:
    """List, show, pause, resume, run and delete cron entries.

    They are made by goose.cron(…) in code, or by [cron.NAME] in goose.toml.

    \b
    Ends with
      0    done                      1    anything else
      2    there is no such entry, or a setting is wrong
      4    the broker or the store cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


@contextmanager
def _crons(broker: str | None) -> Iterator[Crons]:
    with opened(broker, "cron entries", kept=True) as client:
        yield client.crons


@command.command("list")
@common
def list_(*, broker: str | None, as_json: bool) -> None:
    """List all entries with the instant each fires next."""
    with _crons(broker) as crons:
        found = crons.list()
    if as_json:
        print_json([_fields(cron) for cron in found])
    elif found:
        print_table([_row(cron) for cron in found])
    else:
        click.echo(f"there is no cron entry at {place(configured(broker))}", err=True)


@command.command("show")
@click.argument("name")
@click.option(
    "--next", "count", type=click.IntRange(1, 1000), default=NEXT, help="So many instants.  [5]"
)
@common
def show(*, name: str, count: int, broker: str | None, as_json: bool) -> None:
    """Show all there is of one entry, its arguments and next instants too."""
    with _crons(broker) as crons:
        cron = crons.found(name)
    fields = _fields(cron, count)
    if as_json:
        print_json([fields])
        return
    width = max(map(len, fields))
    for key, value in fields.items():
        if key != "upcoming" and value not in (None, "", {}, []):
            shown = json.dumps(value) if isinstance(value, (list, dict)) else value
            click.echo(f"{key:<{width}}  {printable(shown)}")
    for number, instant in enumerate(cron.upcoming(count)):
        click.echo(f"{'' if number else 'upcoming':<{width}}  {instant.isoformat(' ')}")


def _changing(verb: F) -> F:
    return click.argument("name")(common(verb))


@command.command("pause")
@_changing
def pause(*, name: str, broker: str | None, as_json: bool) -> None:
    """Have an entry fire no more until it is resumed."""
    with _crons(broker) as crons:
        _tell(crons.pause(name), "is paused", as_json=as_json)


@command.command("resume")
@_changing
def resume(*, name: str, broker: str | None, as_json: bool) -> None:
    """Have a paused entry fire again; what passed meanwhile is not made up for."""
    with _crons(broker) as crons:
        cron = crons.resume(name)
    _tell(cron, f"fires next {cron.upcoming(1)[0].isoformat(' ')}", as_json=as_json)


@command.command("run")
@_changing
def run(*, name: str, broker: str | None, as_json: bool) -> None:
    """Enqueue an entry's job now, besides its instants; print the job's id."""
    with _crons(broker) as crons:
        job = crons.run(name)
    if as_json:
        print_json([{"name": name, "id": job.id}])
    else:
        click.echo(job.id)


@command.command("delete")
@sure
@_changing
def delete(*, name: str, yes: bool, broker: str | None, as_json: bool) -> None:
    """Forget an entry. A program or a file that has it registers it again when it starts."""
    with _crons(broker) as crons:
        cron = crons.found(name)
        confirm(f"Delete the cron entry {name}?", yes=yes)
        crons.delete(name)
    _tell(cron, "is deleted", as_json=as_json)


def _tell(cron: Cron, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json([_fields(cron)])
    else:
        click.echo(f"{cron.name} {what}")


def _fields(cron: Cron, count: int = 1) -> dict[str, object]:
    job = cron.job
    return {
        "name": cron.name,
        "expression": cron.expression,
        "timezone": cron.timezone,
        "catch_up": cron.catch_up,
        "paused": cron.paused,
        "function": job.fn,
        "args": job.args,
        "kwargs": job.kwargs,
        "queue": job.queue,
        "last": _moment(cron.last_at),
        "next": None if cron.paused else _moment(cron.next_at),
        "upcoming": [instant.isoformat() for instant in cron.upcoming(count)],
    }


def _moment(epoch: float | None) -> str | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat()


def _row(cron: Cron) -> dict[str, object]:
    next_due = cron.next_due
    return {
        "name": cron.name,
        "expression": cron.expression,
        "timezone": cron.timezone,
        "function": cron.job.fn,
        "next": "paused" if next_due is None else next_due.isoformat(" "),
        "": "" if next_due is None else f"in {lasting(max(0.0, cron.next_at - time.time()))}",
    }
