"""``goose queues``: how many jobs each queue holds, and how long the oldest has waited."""

from __future__ import annotations

import click

from goose.brokers.base import QueueStats, State
from goose.cli.choosing import common, configured, inspecting, place
from goose.cli.showing import lasting, print_json, print_table

STATES = (State.READY, State.RUNNING, State.SCHEDULED, State.DEAD)


@click.command("queues")
@common
def command(*, broker: str | None, as_json: bool) -> None:
    """Show every queue that holds a job: jobs by state, and the age of the oldest ready one.

    With --json: queue, ready, running, scheduled, dead, oldest_seconds. What a broker cannot
    tell is shown as "?", in JSON as null.
    """
    with inspecting(broker) as inspection:
        found = inspection.queues()
    if as_json:
        print_json([_fields(stats) for stats in found])
    elif found:
        print_table([_row(stats) for stats in found])
    else:
        click.echo(f"no queue of {place(configured(broker))} holds a job", err=True)


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
