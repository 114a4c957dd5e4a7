"""``goose jobs``: look at stored jobs one by one, and change them by id.

Every change is bound to the state the job was seen in: one that a worker takes meanwhile
is left to it, and reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice

import click

from goose.brokers.base import State
from goose.cli import ends
from goose.cli.choosing import (
    LIMIT,
    Filters,
    common,
    configured,
    confirm,
    filtering,
    inspecting,
    opened,
    place,
    several,
    sure,
)
from goose.cli.showing import job_fields, print_job, print_jobs, print_json, printable
from goose.inspecting import Inspection, StoredJob

NOT_FOUND = "not_found"
MOVED = "moved"
"""It changed its state between the look at it and the change."""
REASONS = {
    NOT_FOUND: "is not stored here; those that are done are not kept",
    MOVED: "changed its state meanwhile; look at it again",
    "running": "is running, so it was left alone",
    "scheduled": "is scheduled; make it ready first, with: goose jobs retry",
    "ready": "is ready, not dead",
    "dead": "is dead; make it ready first, with: goose jobs retry",
}
"""What to tell of an outcome that is not what was asked for."""

Outcomes = dict[str, str]
"""What became of each id."""
Changes = Mapping[State, tuple[str, Callable[[Sequence[str]], Sequence[str]]]]
"""What to do to jobs by their state: the word for it, and a function of ids that returns the changed."""


@click.group("jobs")
def command() -> None:
    """List, show, retry, delete, cancel and prioritise stored jobs; ask for results and progress.

    \b
    Ends with
      0    done                      1    a job was not there, or not to be changed
      2    a setting is wrong        4    the broker cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


# --- looking -----------------------------------------------------------------------------


@command.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only these.")
@filtering
@click.option("--limit", type=LIMIT, default=50, metavar="N", help="At most so many.  [50]")
@click.option("--args", "with_args", is_flag=True, help="Show arguments, too.")
@common
def list_(
    *,
    state: str | None,
    queue: str | None,
    function: str | None,
    older_than: float,
    limit: int,
    with_args: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """List stored jobs: scheduled, ready, running, dead; in each state the next or oldest first."""
    wanted = Filters(queue, function, older_than)
    chosen = State(state) if state else None
    list_jobs(wanted, chosen, limit, with_args=with_args, broker=broker, as_json=as_json)


def list_jobs(
    wanted: Filters,
    state: State | None,
    limit: int,
    *,
    with_args: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """Print up to *limit* jobs, and say so if there are more."""
    with inspecting(broker) as inspection:
        found = list(islice(wanted.find(inspection, state), limit + 1))
    shown = found[:limit]
    if as_json:
        print_json([job_fields(stored, args=with_args) for stored in shown])
    elif shown:
        print_jobs(shown, args=with_args)
    else:
        kind = f"{state.value} job" if state else "job"
        such = " like that" if wanted.given else ""
        click.echo(f"no {kind}{such} in {place(configured(broker))}", err=True)
    if len(found) > limit:
        click.echo(f"there are more than {limit:,}; a higher --limit shows them", err=True)


@command.command("show")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def show(*, ids: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Show all that is stored of the jobs of these ids, their arguments too."""
    with inspecting(broker) as inspection:
        found = {id_: inspection.get(id_) for id_ in ids}
    show_jobs([stored for stored in found.values() if stored], as_json=as_json)
    refuse({id_: NOT_FOUND for id_, stored in found.items() if stored is None})


def show_jobs(jobs: Sequence[StoredJob], *, as_json: bool) -> None:
    """Print all there is of *jobs*."""
    if as_json:
        print_json([job_fields(stored, full=True) for stored in jobs])
        return
    for number, stored in enumerate(jobs):
        if number:
            click.echo()
        print_job(stored)


# --- changing ----------------------------------------------------------------------------


@command.command("retry")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def retry(*, ids: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Make jobs due now: those that are scheduled or wait for a retry, and dead ones again."""
    with inspecting(broker) as inspection:
        changes: Changes = {
            State.SCHEDULED: ("promoted", inspection.promote),
            State.DEAD: ("replayed", inspection.replay),
        }
        results = change(inspection, ids, changes)
    end(results, {"promoted", "replayed", "ready"}, as_json=as_json)


@command.command("delete")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@sure
@common
def delete(*, ids: tuple[str, ...], yes: bool, broker: str | None, as_json: bool) -> None:
    """Delete jobs that are not running."""
    confirm(f"Delete {several(len(set(ids)))} from {place(configured(broker))}?", yes=yes)
    with inspecting(broker) as inspection:
        changes: Changes = {
            state: ("deleted", partial(inspection.delete, state=state))
            for state in (State.SCHEDULED, State.READY, State.DEAD)
        }
        results = change(inspection, ids, changes)
    end(results, {"deleted"}, as_json=as_json)


@command.command("cancel")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every job that the options below leave.")
@filtering
@sure
@common
def cancel(
    *,
    ids: tuple[str, ...],
    everything: bool,
    queue: str | None,
    function: str | None,
    older_than: float,
    yes: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """End jobs wherever they are: queued ones are removed, running ones are asked to stop.

    Jobs that wait for others are removed as well if they are named by id; the options do not find them.

    The answer for each: removed; stopping (it runs, and sees should_stop within a second); asked
    (the broker does not show where it is); dead; not_found.
    """
    wanted = Filters(queue, function, older_than)
    if bool(ids) == (everything or wanted.given):
        raise click.UsageError("give ids, or --all, or options that say which")
    which = several(len(set(ids))) if ids else "every job that fits"
    confirm(f"Cancel {which} of {place(configured(broker))}?", yes=yes)
    with opened(broker) as client:
        results: Outcomes = dict(
            client.cancel(*ids)
            if ids
            else client.cancel_all(queue, fn=function, older_than=older_than)
        )
    if not results and not as_json:
        click.echo("no job fits", err=True)
    end(results, {"removed", "stopping", "asked"}, as_json=as_json)


@command.command("prioritise")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def prioritise(*, ids: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Move ready jobs to the front of their queue, in this order."""
    with inspecting(broker) as inspection:
        changes: Changes = {State.READY: ("prioritised", inspection.prioritise)}
        results = change(inspection, ids, changes)
    end(results, {"prioritised"}, as_json=as_json)


command.add_command(ends.result)
command.add_command(ends.progress)


def change(inspection: Inspection, ids: Iterable[str], changes: Changes) -> Outcomes:
    """Change each job as *changes* says for its state.

    Returns:
        For each id what was done, else `NOT_FOUND`, `MOVED` or the state it is left in.
    """
    results: Outcomes = {}
    groups: defaultdict[State, list[str]] = defaultdict(list)
    for id_ in dict.fromkeys(ids):
        stored = inspection.get(id_)
        results[id_] = stored.state.value if stored else NOT_FOUND
        if stored:
            groups[stored.state].append(id_)
    for state, (done, verb) in changes.items():
        changed = set(verb(groups[state]))
        results |= {id_: done if id_ in changed else MOVED for id_ in groups[state]}
    return results


def end(results: Outcomes, good: AbstractSet[str], *, as_json: bool) -> None:
    """Print what became of each id, and end with exit code 1 if any of it is not *good*."""
    if as_json:
        print_json([{"id": id_, "result": result} for id_, result in results.items()])
    bad = {id_: result for id_, result in results.items() if result not in good}
    for id_, result in results.items():
        if id_ not in bad and not as_json:
            click.echo(f"{printable(id_)}  {result}")
    refuse(bad)


def refuse(results: Outcomes) -> None:
    """Say why nothing was done for these, and end with exit code 1 if there are any."""
    for id_, result in results.items():
        click.echo(f"goose: job {printable(id_)} {REASONS[result]}", err=True)
    if results:
        raise click.exceptions.Exit(1)
