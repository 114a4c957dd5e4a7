"""``goose dead retry-one``: runs one dead job again, here, and shows what it raises in full."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from goose.brokers.base import Delivery, Session, State
from goose.cli.choosing import checked, common, configured, inspecting, place
from goose.cli.showing import print_json
from goose.inspecting import SLACK, Inspection, StoredJob
from goose.jobs import check_queue, seal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from goose.middleware.base import Middleware
    from goose.testing.bench import Run

_NOBODY = Session("goose-retry-one")


@click.command("retry-one")
@click.argument("id_", metavar="[ID]", required=False)
@click.option(
    "--module", "modules", metavar="NAME", multiple=True,
    help="Whose functions may run; repeatable.  [as configured: allow]",
)  # fmt: skip
@click.option("--queue", callback=checked(check_queue), help="The oldest of this queue.")
@common
def command(
    *,
    id_: str | None,
    modules: tuple[str, ...],
    queue: str | None,
    broker: str | None,
    as_json: bool,
) -> None:
    """Run one dead job again in this process, and show the whole traceback if it fails.

    The job of that id, or the one that is dead for longest. If it is done, it is removed from the
    dead jobs; if it fails, it stays there as it is. Nothing is retried by itself, and what its
    policy would call (on_error, on_death) is not called. Ends with 1 if it failed, or is not there.
    """
    if id_ and queue:
        raise click.UsageError("give an id, or a queue, not both")
    with inspecting(broker) as inspection:
        stored = _chosen(inspection, id_, queue)
        if stored is None:
            what = f" {id_}" if id_ else f" of queue {queue}" if queue else ""
            click.echo(f"there is no dead job{what} in {place(configured(broker))}", err=True)
            raise click.exceptions.Exit(1)
        chosen = configured(broker)
        run = _run(stored, modules or chosen.allow, chosen.middleware)
        well = run.ending in ("done", "skipped")
        if well and not inspection.delete([stored.id], state=State.DEAD):
            click.echo(f"job {stored.id} was changed by somebody else meanwhile", err=True)
    _tell(stored, run, as_json=as_json, well=well)
    raise click.exceptions.Exit(0 if well else 1)


def _chosen(inspection: Inspection, id_: str | None, queue: str | None) -> StoredJob | None:
    if id_ is None:
        return next(inspection.find(State.DEAD, queue, limit=1), None)
    stored = inspection.get(id_)
    return stored if stored is not None and stored.state is State.DEAD else None


def _run(stored: StoredJob, modules: Sequence[str], middleware: Sequence[str | Middleware]) -> Run:
    """Run the function of *stored* inside of *middleware*; nothing is settled."""
    from goose.testing.bench import Bench  # brings the engine

    if stored.job is None:
        raise click.UsageError(f"job {stored.id} cannot be decoded: {stored.problem}")
    if not modules:
        raise click.UsageError("name the module of its function: --module app.tasks")
    if str(Path.cwd()) not in sys.path:  # as a worker has it
        sys.path.insert(0, str(Path.cwd()))
    policy = {
        name: value for name, value in (stored.job.retry or {}).items() if name == "succeed_on"
    }
    fresh = stored.job.evolve(attempt=0, crashes=0, suspicions=0, deferred_since=None, retry=policy)
    envelope = seal(fresh, max_bytes=len(stored.body) + SLACK)
    return Bench(modules, middleware=middleware).run(Delivery(envelope, None, _NOBODY))[0]


def _tell(stored: StoredJob, run: Run, *, as_json: bool, well: bool) -> None:
    trace = "".join(traceback.format_exception(run.error)) if run.error is not None else ""
    if as_json:
        result = {"id": stored.id, "result": run.ending if well else "failed"}
        print_json([{**result, "reason": run.reason or None, "traceback": trace or None}])
    elif well:
        click.echo(f"job {stored.id} is {run.ending}, and not dead any more")
    else:
        click.echo(trace or f"{run.ending}: {run.reason}", nl=not trace)
        click.echo(f"job {stored.id} failed again, and stays dead", err=True)
