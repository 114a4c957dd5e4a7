"""``goose queues``: how many jobs each queue holds, and how long the oldest has waited."""

from __future__ import annotations

import click

from goose.brokers.base import QueueStats, State
from goose.cli.choosing import common, configured, inspecting, place
from goose.cli.showing import lasting, print_json, print_table
from goose.clients import Client
from goose.errors import GooseError
from goose.settings import Settings

STATES = (State.READY, State.RUNNING, State.SCHEDULED, State.DEAD)


@click.command("queues")
@common
def command(*, broker: str | None, as_json: bool) -> None:
    """Show every queue that holds a job: jobs by state, and the age of the oldest ready one.

    With --json: queue, ready, running, scheduled, dead, oldest_seconds, circuit. What a broker
    cannot tell is shown as "?", in JSON as null.
    """
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
