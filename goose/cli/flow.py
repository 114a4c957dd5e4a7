"""``goose flow``: jobs that depend on each other, drawn and cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from goose.brokers import sees_all
from goose.brokers.base import Inspector
from goose.cancelling import Cancelled
from goose.cli.choosing import common, confirm, opened, sure
from goose.cli.jobs import Outcomes, end
from goose.cli.showing import print_json, printable
from goose.clients import Client
from goose.errors import Undecodable
from goose.features.flows import drawing
from goose.features.flows.book import Flows
from goose.jobs import decode


@click.group("flow")
def command() -> None:
    """Show and cancel jobs that depend on each other.

    \b
    Ends with
      0    done                      1    there is no such job
      2    a setting is wrong        4    broker or store cannot be reached, or refuse
    """  # noqa: D301 - \b is click's mark for text to keep as it is


@command.command("show")
@click.argument("job_id", metavar="ID")
@click.option(
    "--svg", "target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write a drawing to this file; - for standard output.",
)  # fmt: skip
@common
def show(*, job_id: str, target: Path | None, broker: str | None, as_json: bool) -> None:
    """Show the flow that the job of this id is in: each job, its status, what it waits for."""
    with opened(broker) as client:
        jobs = _known(client, job_id, limit=drawing.LIMIT)
    if target is not None:
        with click.open_file(str(target), "w", encoding="utf-8") as file:
            file.write(drawing.svg(jobs))
        if str(target) != "-":
            click.echo(f"wrote {target}", err=True)
    elif as_json:
        print_json(
            [
                {
                    "id": job.id,
                    "fn": job.fn or None,
                    "status": job.status,
                    "after": dict(job.parents),
                }
                for job in jobs
            ]
        )
    else:
        for line in drawing.text(jobs).splitlines():
            click.echo(printable(line))


@command.command("cancel")
@click.argument("job_id", metavar="ID")
@sure
@common
def cancel(*, job_id: str, yes: bool, broker: str | None, as_json: bool) -> None:
    """End every job of the flow that the job of this id is in, as `goose jobs cancel`.

    Those that wait end first, so that no other's end sets them free.
    """
    confirm(f"Cancel the flow of {printable(job_id)}?", yes=yes)
    with opened(broker) as client:
        results: Outcomes = {**cancelled(client, _known(client, job_id, limit=None))}
    end(results, {"removed", "stopping", "asked"}, as_json=as_json)


def cancelled(client: Client, jobs: Sequence[drawing.Shown]) -> dict[str, Cancelled]:
    """Cancel those of *jobs*, which are a flow, that have not ended; return what became of each.

    Raises:
        BrokerError: Broker or store failed; some may be cancelled.
    """
    live = {"scheduled", "ready", "running"}
    if not isinstance(client.broker, Inspector) or not sees_all(client.broker):
        live.add("unknown")  # it may be scheduled or run; whoever gets it ends it
    # Last ones first: of those that are to run anyway none is set free.
    waiting = [job.id for job in reversed(jobs) if job.status == "waiting"]
    under_way = [job.id for job in jobs if job.status in live]
    found: dict[str, Cancelled] = {**client.cancel(*waiting), **client.cancel(*under_way)}
    return {job.id: found[job.id] for job in jobs if job.id in found}


def gathered(client: Client, job_id: str, *, limit: int | None = None) -> list[drawing.Shown]:
    """Return the jobs of the flow that the job of this id is in, *limit* at most.

    Raises:
        BrokerError: Broker or store failed.
    """
    flows = Flows(client.store, client.broker)
    return drawing.gathered(
        flows, job_id, client.status, lambda id_: _function(client, id_), limit=limit
    )


def _known(client: Client, job_id: str, *, limit: int | None) -> list[drawing.Shown]:
    jobs = gathered(client, job_id, limit=limit)
    if len(jobs) == 1 and jobs[0].status == "unknown":
        click.echo(f"goose: nothing is known here of job {printable(job_id)}", err=True)
        raise click.exceptions.Exit(1)
    return jobs


def _function(client: Client, job_id: str) -> str:
    """Return the function of a job that waits for nobody, if the broker still has it."""
    broker = client.broker
    found = broker.find(job_id) if isinstance(broker, Inspector) else None
    try:
        return "" if found is None else decode(found.envelope, max_bytes=1 << 62).fn
    except Undecodable:
        return ""
