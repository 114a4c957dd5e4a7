"""``goose queues``: how many jobs each queue holds, how long the oldest has waited; pausing them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import click

from goose.brokers.base import QueueStats, State
from goose.cli.choosing import common, configured, controlling, inspecting, place
from goose.cli.showing import lasting, print_json, print_table
from goose.clients import Client
from goose.errors import GooseError
from goose.settings import Settings

STATES = (State.READY, State.RUNNING, State.SCHEDULED, State.DEAD)


@click.group("queues", invoke_without_command=True)
@common
@click.pass_context
def command(ctx: click.Context, *, broker: str | None, as_json: bool) -> None:
    """Show every queue that holds a job: jobs by state, and the age of the oldest ready one.

    With --json: queue, ready, running, scheduled, dead, oldest_seconds, circuit. What a broker
    cannot tell is shown as "?", in JSON as null.
    """
    if ctx.invoked_subcommand is not None:
        return
    with inspecting(broker) as inspection:
        found = inspection.queues()
    states = circuits(configured(broker))
    if as_json:
        print_json([_fields(stats) | {"circuit": states.get(stats.queue)} for stats in found])
    elif found:
        shown = [{"circuit": states.get(stats.queue, "")} if states else {} for stats in found]
        print_table([_row(stats) | more for stats, more in zip(found, shown, strict=True)])
    else:
        click.echo(f"no queue of {place(configured(broker))} holds a job", err=True)


@command.command("pause")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@common
def pause(*, queues: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Have nothing taken from these queues, by any worker, until they are resumed."""
    with controlling(broker) as client:
        client.pause(*queues)
        told = client.controls.paused()
    _tell(told, as_json=as_json)


@command.command("resume")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@common
def resume(*, queues: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Have jobs taken from these queues again."""
    with controlling(broker) as client:
        client.resume(*queues)
        told = client.controls.paused()
    _tell(told, as_json=as_json)


@command.command("paused")
@common
def paused(*, broker: str | None, as_json: bool) -> None:
    """Show the queues that are paused, and since when."""
    with controlling(broker) as client:
        told = client.controls.paused()
    _tell(told, as_json=as_json)


def _tell(told: Mapping[str, float], *, as_json: bool) -> None:
    rows = {queue: datetime.fromtimestamp(at, UTC).isoformat() for queue, at in told.items()}
    if as_json:
        print_json([{"queue": queue, "since": since} for queue, since in rows.items()])
        return
    for queue, since in rows.items():
        click.echo(f"{queue} is paused since {since}")
    if not rows:
        click.echo("no queue is paused", err=True)


def circuits(chosen: Settings) -> dict[str, str]:
    """Return how the circuit of each queue that has one stands, as far as workers have told."""
    if not chosen.circuit:
        return {}
    from goose.worker.circuits import shown  # only those who have some

    try:
        with Client(settings=chosen) as client:
            opened = dict(shown(client.store))
    except GooseError:
        return {}  # each worker goes by itself, and no command can see it
    return {
        queue: f"open, tries one in {lasting(opened[queue])}" if queue in opened else "closed"
        for queue in chosen.circuit
    }


def _fields(stats: QueueStats) -> dict[str, object]:
    return {
        "queue": stats.queue,
        **{state.value: stats.counts.get(state) for state in STATES},
        "oldest_seconds": None if stats.oldest is None else round(stats.oldest, 3),
    }


def _row(stats: QueueStats) -> dict[str, object]:
    return {
        "queue": stats.queue,
        **{state.value: _shown(stats.counts.get(state)) for state in STATES},
        "oldest": "" if stats.oldest is None else lasting(stats.oldest),
    }


def _shown(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"
