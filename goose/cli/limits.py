"""``goose limits``: what holds for the starts of jobs, changed while workers work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from goose import values
from goose.cli.choosing import common, opened
from goose.cli.showing import print_json

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def pace(text: str) -> tuple[float, float]:
    """Return the starts and the seconds in a text such as ``50/m``, ``100/30s`` or ``5``.

    Raises:
        ValueError: It is none.
    """
    number, slash, span = text.partition("/")
    seconds = UNITS.get(span.strip()) or (values.duration(span) if slash else 1.0)
    return float(number), seconds


@click.group("limits")
def command() -> None:
    """Change limits that jobs have, for all of them, also those that wait.

    \b
    Ends with
      0    done                      1    anything else
      2    a value is wrong
      4    the store cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


@command.command("list")
@common
def list_(*, broker: str | None, as_json: bool) -> None:
    """Show the limits that were set by `goose limits set`, or in code by `controls.limit`.

    Limits that jobs bring along, by `using` or @goose.job, are in the jobs and not listed.
    """
    with opened(broker, "orders", kept=True) as client:
        told = client.controls.orders().limits
    _tell(told, as_json=as_json)


@command.command("set")
@click.argument("name")
@click.option("--rate", metavar="N/TIME", help="Starts in a time: 50/m, 100/30s, 5 (a second).")
@click.option("--concurrency", type=int, metavar="N", help="Jobs that run at once.")
@common
def set_(
    *, name: str, rate: str | None, concurrency: int | None, broker: str | None, as_json: bool
) -> None:
    """Set the limit NAME, such as queue:mail, or of one key: NAME/KEY."""
    try:
        starts, per = (None, 1.0) if rate is None else pace(rate)
    except ValueError as error:
        raise click.BadParameter(f"{rate!r}: {error}", param_hint="--rate") from None
    with opened(broker, "orders", kept=True) as client:
        client.controls.limit(name, rate=starts, per=per, concurrency=concurrency)
        told = client.controls.orders().limits
    _tell(told, as_json=as_json)


@command.command("reset")
@click.argument("name")
@common
def reset(*, name: str, broker: str | None, as_json: bool) -> None:
    """Have the limit NAME be again what jobs say themselves."""
    with opened(broker, "orders", kept=True) as client:
        client.controls.unlimit(name)
        told = client.controls.orders().limits
    _tell(told, as_json=as_json)


def _tell(told: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        nothing = dict.fromkeys(("rate", "per", "concurrency"))
        print_json([{"name": name, **nothing, **fields} for name, fields in told.items()])
        return
    for name, fields in told.items():
        shown = []
        if "rate" in fields:
            shown.append(f"rate = {fields['rate']:g} in {fields['per']:g} s")
        if "concurrency" in fields:
            shown.append(f"concurrency = {fields['concurrency']}")
        click.echo(f"{name}  {', '.join(shown)}")
    if not told:
        click.echo("nothing is set; limits are what jobs say themselves", err=True)
