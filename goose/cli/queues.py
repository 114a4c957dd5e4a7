"""``goose queues``: how many jobs each queue holds, and how long the oldest has waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from goose import stores, values
from goose.brokers import namespaced
from goose.brokers.base import QueueStats, State
from goose.cli.choosing import checked, common, configured, inspecting, place
from goose.cli.showing import lasting, print_json, print_table
from goose.clients import Client
from goose.features.activity.reading import QueueActivity, read

STATES = (State.READY, State.RUNNING, State.SCHEDULED, State.DEAD)


@click.command("queues")
@click.option("--stats", is_flag=True, help="Show what their jobs did over a period, too.")
@click.option(
    "--period", callback=checked(values.positive_duration), default="1h", metavar="TIME",
    help="Which, up to now.  [1h]",
)  # fmt: skip
@common
def command(*, stats: bool, period: float, broker: str | None, as_json: bool) -> None:
    """Show every queue that holds a job: jobs by state, and the age of the oldest ready one.

    With --json: queue, ready, running, scheduled, dead, oldest_seconds. What a broker cannot
    tell is shown as "?", in JSON as null.

    With --stats also runs, retries, deaths, and how long jobs took, for every queue that did
    something in the period. Workers record that if they have activity:// among their metrics.
    """
    with inspecting(broker) as inspection:
        found = inspection.queues()
    if stats:
        _show_stats(found, _activity(broker, period), as_json=as_json)
        return
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


# --- over a period -------------------------------------------------------------------------


def _activity(broker: str | None, period: float) -> dict[str, QueueActivity]:
    chosen = configured(broker)
    with Client(settings=chosen) as client:
        url = namespaced(chosen.store, chosen.namespace)
        store = stores.beside(client.broker, url, broker_url=chosen.broker)
        try:
            return {activity.queue: activity for activity in read(store, period=period)}
        finally:
            store.close()


def _show_stats(
    found: Sequence[QueueStats], activity: Mapping[str, QueueActivity], *, as_json: bool
) -> None:
    by_name = {stats.queue: stats for stats in found}
    rows = [
        (by_name.get(name) or QueueStats(name, dict.fromkeys(STATES, 0), None), activity.get(name))
        for name in sorted({*by_name, *activity})
    ]
    if as_json:
        print_json([{**_fields(stats), **_activity_fields(did)} for stats, did in rows])
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
