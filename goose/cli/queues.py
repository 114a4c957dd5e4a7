"""``goose queues``: how many jobs each queue holds, how long the oldest has waited; pausing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click

from goose import values
from goose.brokers import name_of
from goose.brokers.base import Grouped, QueueStats, State
from goose.cli.choosing import checked, common, configured, inspecting, opened, place
from goose.cli.showing import lasting, print_json, print_table, printable
from goose.clients import Client
from goose.errors import GooseError, Unsupported
from goose.features.activity.reading import QueueActivity, read
from goose.settings import Settings

STATES = (State.READY, State.RUNNING, State.SCHEDULED, State.DEAD)


@click.group("queues", invoke_without_command=True)
@click.option("--stats", is_flag=True, help="Show what their jobs did over a period, too.")
@click.option(
    "--period", callback=checked(values.positive_duration), default="1h", metavar="TIME",
    help="Which, up to now.  [1h]",
)  # fmt: skip
@common
@click.pass_context
def command(
    ctx: click.Context, *, stats: bool, period: float, broker: str | None, as_json: bool
) -> None:
    """Show every queue that holds a job: jobs by state, and the age of the oldest ready one.

    With --json: queue, ready, running, scheduled, dead, oldest_seconds, circuit. What a broker
    cannot tell is shown as "?", in JSON as null.

    With --stats also runs, retries, deaths, and how long jobs took, for every queue that did
    something in the period. Workers record that if they have activity:// among their metrics.
    """
    if ctx.invoked_subcommand is not None:
        return
    with inspecting(broker) as inspection:
        found = inspection.queues()
    states = circuits(configured(broker))
    if stats:
        _show_stats(found, states, _activity(broker, period), as_json=as_json)
        return
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
    with opened(broker, "orders", kept=True) as client:
        client.pause(*queues)
        told = client.controls.paused()
    _tell(told, as_json=as_json)


@command.command("resume")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@common
def resume(*, queues: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Have jobs taken from these queues again."""
    with opened(broker, "orders", kept=True) as client:
        client.resume(*queues)
        told = client.controls.paused()
    _tell(told, as_json=as_json)


@command.command("paused")
@common
def paused(*, broker: str | None, as_json: bool) -> None:
    """Show the queues that are paused, and since when."""
    with opened(broker, "orders", kept=True) as client:
        told = client.controls.paused()
    _tell(told, as_json=as_json)


@command.command("groups")
@click.argument("queue", metavar="QUEUE")
@click.option("--limit", default=100, type=click.IntRange(1, 10_000), help="How many.  [100]")
@common
def groups(*, queue: str, limit: int, broker: str | None, as_json: bool) -> None:
    """Show the groups with ready jobs in QUEUE, about in the order of their next turns."""
    with opened(broker) as client:
        grouped = client.broker
        if not isinstance(grouped, Grouped):
            raise Unsupported(f"{name_of(grouped)} cannot share a queue among groups")
        found = grouped.next_groups(queue, limit=limit)
    if as_json:
        print_json([{"group": group} for group in found])
        return
    for group in found:
        click.echo(printable(group))
    if not found:
        click.echo(f"no job with a group is ready in {printable(queue)}", err=True)


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


# --- over a period -------------------------------------------------------------------------


def _activity(broker: str | None, period: float) -> dict[str, QueueActivity]:
    with Client(settings=configured(broker)) as client:
        return {activity.queue: activity for activity in read(client.store, period=period)}


def _show_stats(
    found: Sequence[QueueStats],
    states: Mapping[str, str],
    activity: Mapping[str, QueueActivity],
    *,
    as_json: bool,
) -> None:
    by_name = {stats.queue: stats for stats in found}
    rows = [
        (by_name.get(name) or QueueStats(name, dict.fromkeys(STATES, 0), None), activity.get(name))
        for name in sorted({*by_name, *activity})
    ]
    if as_json:
        print_json(
            [
                {**_fields(stats), "circuit": states.get(stats.queue), **_activity_fields(did)}
                for stats, did in rows
            ]
        )
        return
    if not activity:
        click.echo(
            "nothing was recorded in this time; give workers --metrics activity://", err=True
        )
    print_table([{**_row(stats), **_activity_row(did)} for stats, did in rows])


def _activity_fields(did: QueueActivity | None) -> dict[str, object]:
    def rounded(number: float | None) -> float | None:
        return None if number is None else round(number, 6)

    return {
        "processed": did and did.processed,
        "succeeded": did and did.succeeded,
        "retried": did and did.retried,
        "died": did and did.dead,
        "retried_percent": did and rounded(did.retried_percent),
        "p50": did and rounded(did.p50),
        "p95": did and rounded(did.p95),
        "p99": did and rounded(did.p99),
    }


def _activity_row(did: QueueActivity | None) -> dict[str, object]:
    if did is None:
        return dict.fromkeys(("runs", "retried", "died", "p50", "p95", "p99"), "")
    percent = did.retried_percent
    return {
        "runs": f"{did.processed:,}",
        "retried": "" if percent is None else f"{percent:.1f} %",
        "died": f"{did.dead:,}",
        **{
            name: "" if time is None else _took(time)
            for name, time in (("p50", did.p50), ("p95", did.p95), ("p99", did.p99))
        },
    }


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else lasting(seconds)
