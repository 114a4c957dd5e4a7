"""``goose workers``: who is at work, and how they are to work from now on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from goose.cli.choosing import common, configured, opened, place
from goose.cli.showing import lasting, print_json, print_table
from goose.features.controls import WorkerRecord
from goose.features.controls.knobs import LEVELS

NOTHING = dict.fromkeys(("concurrency", "async_concurrency", "processes", "queues", "log_level"))


@click.group("workers")
def command() -> None:
    """List worker processes, and change how they work while they do.

    \b
    Ends with
      0    done                      1    anything else
      2    there is no such worker, or a value is wrong
      4    the store cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


@command.command("list")
@common
def list_(*, broker: str | None, as_json: bool) -> None:
    """List the worker processes at work, as each told of itself in the last 10 seconds.

    One that was killed stays for half a minute.
    """
    with opened(broker, "orders", kept=True) as client:
        found = client.controls.workers()
        now = client.store.now()
    if as_json:
        print_json([_fields(record) for record in found])
    elif found:
        print_table([_row(record, now) for record in found])
    else:
        click.echo(f"no worker of {place(configured(broker))} is at work", err=True)


@command.command("set")
@click.argument("workers", default="*", metavar="[NAME]")
@click.option("--concurrency", type=int, metavar="N", help="Sync functions at once per process.")
@click.option("--async-concurrency", type=int, metavar="N", help="Async functions at once.")
@click.option("--processes", type=int, metavar="N", help="Processes under each supervisor.")
@click.option("--queues", help="mail,default in strict order; mail=6,default=3 by weight.")
@click.option("--log-level", type=click.Choice(LEVELS), help="What they log.")
@common
def set_(
    *, workers: str, queues: str | None, broker: str | None, as_json: bool, **knobs: Any
) -> None:
    """Have workers work so from now on, those that start later too, until `reset`.

    NAME is that of one, as `goose workers list` shows it, or a pattern such as 'web-*'; all if
    left out.
    """
    with opened(broker, "orders", kept=True) as client:
        client.controls.set(workers, queues=queues, **knobs)
        told = client.controls.orders().workers
    _tell_set(told, as_json=as_json)


@command.command("reset")
@click.argument("workers", required=False, metavar="[NAME]")
@common
def reset(*, workers: str | None, broker: str | None, as_json: bool) -> None:
    """Have workers work as they were started: those set by this NAME or pattern, or all."""
    with opened(broker, "orders", kept=True) as client:
        client.controls.reset(workers)
        told = client.controls.orders().workers
    _tell_set(told, as_json=as_json)


@command.command("orders")
@common
def orders(*, broker: str | None, as_json: bool) -> None:
    """Show what is set for which workers."""
    with opened(broker, "orders", kept=True) as client:
        told = client.controls.orders().workers
    _tell_set(told, as_json=as_json)


def _tell_set(told: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json([{"workers": name, **NOTHING, **_plain(told[name])} for name in told])
        return
    for name, values in told.items():
        what = ", ".join(f"{key} = {_shown(value)}" for key, value in values.items())
        click.echo(f"{name}  {what}")
    if not told:
        click.echo("nothing is set; workers work as they were started", err=True)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    queues = {"queues": dict(values["queues"])} if "queues" in values else {}
    return {**values, **queues}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return _queues(dict(value))
    return str(value)


def _queues(queues: Any) -> str:
    return ",".join(f"{name}={weight}" if weight else name for name, weight in queues.items())


def _fields(record: WorkerRecord) -> dict[str, object]:
    started_at = datetime.fromtimestamp(record.started_at, UTC).isoformat()
    return {**asdict(record), "started_at": started_at}


def _row(record: WorkerRecord, now: float) -> dict[str, object]:
    return {
        "name": record.name,
        "pid": record.pid,
        "processes": record.processes,
        "queues": _queues(record.queues),
        "paused": ",".join(record.paused),
        "sync": record.concurrency,
        "async": record.async_concurrency,
        "running": record.running,
        "log": record.log_level,
        "up": lasting(max(0.0, now - record.started_at)),
    }
