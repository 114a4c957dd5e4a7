"""``goose dead``: the jobs that were given up, and what to do with them.

Which ones is said by ids, or by filters, or by ``--all``: the verbs that change something
never take all of them for want of a word. They choose first and then change exactly the
chosen, those that are still dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import click

from goose.brokers.base import State
from goose.cli import retry_one
from goose.cli.choosing import (
    LIMIT,
    Filters,
    common,
    configured,
    confirm,
    filtering,
    inspecting,
    paged,
    place,
    several,
    sure,
)
from goose.cli.jobs import NOT_FOUND, change, end, list_jobs, refuse, show_jobs
from goose.cli.showing import print_json
from goose.inspecting import Inspection

F = TypeVar("F", bound=Callable[..., Any])


@click.group("dead")
def command() -> None:
    """List, show, pop, replay and purge dead jobs, or run one again here.

    \b
    Ends with
      0    done                      1    a job was not there, or is not dead
      2    a setting is wrong        4    the broker cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is


def _choosing(verb: F) -> F:
    """Add ids, filters, a limit and ``--all``."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All of them."),
        click.option("--limit", type=LIMIT, metavar="N", help="Only the N oldest."),
        filtering,
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    ):
        verb = option(verb)
    return verb


command.add_command(retry_one.command)


# --- looking -----------------------------------------------------------------------------


@command.command("list")
@filtering
@click.option("--limit", type=LIMIT, default=50, metavar="N", help="At most so many.  [50]")
@click.option("--args", "with_args", is_flag=True, help="Show arguments, too.")
@common
def list_(
    *,
    queue: str | None,
    function: str | None,
    older_than: float,
    limit: int,
    with_args: bool,
    broker: str | None,
    as_json: bool,
) -> None:
    """List dead jobs, the longest dead first."""
    wanted = Filters(queue, function, older_than)
    list_jobs(wanted, State.DEAD, limit, with_args=with_args, broker=broker, as_json=as_json)


@command.command("show")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def show(*, ids: tuple[str, ...], broker: str | None, as_json: bool) -> None:
    """Show all that is stored of dead jobs, their arguments and failures too."""
    with inspecting(broker) as inspection:
        found = {id_: inspection.get(id_) for id_ in dict.fromkeys(ids)}
    dead = [stored for stored in found.values() if stored and stored.state is State.DEAD]
    show_jobs(dead, as_json=as_json)
    refuse(
        {
            id_: stored.state.value if stored else NOT_FOUND
            for id_, stored in found.items()
            if stored is None or stored.state is not State.DEAD
        }
    )


# --- changing ----------------------------------------------------------------------------


@command.command("pop")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filtering
@click.option("--limit", type=LIMIT, default=1, metavar="N", help="The N oldest.  [1]")
@sure
@common
def pop(
    *,
    ids: tuple[str, ...],
    limit: int,
    yes: bool,
    broker: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Remove dead jobs and print all there is of them: the oldest, or those of these ids."""
    wanted = _wanted(ids, **filters, limit=None if ids else limit)
    with inspecting(broker) as inspection:
        if ids:
            found = [stored for stored in map(inspection.get, dict.fromkeys(ids)) if stored]
            chosen = [stored for stored in found if stored.state is State.DEAD]
        else:
            chosen = list(wanted.find(inspection, State.DEAD))
        _ask("Remove", len(chosen), broker, yes=yes)
        named = list(dict.fromkeys(ids)) or [stored.id for stored in chosen]
        outcomes = change(inspection, named, _deleting(inspection, "popped"))
    popped = [stored for stored in chosen if outcomes[stored.id] == "popped"]
    show_jobs(popped, as_json=as_json)
    if not named:
        click.echo(f"no such dead job in {place(configured(broker))}", err=True)
    refuse({id_: result for id_, result in outcomes.items() if result != "popped"})


@command.command("replay")
@_choosing
@common
def replay(
    *,
    ids: tuple[str, ...],
    everything: bool,
    broker: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Make dead jobs ready again, as if they had never failed; their history stays."""
    wanted = _wanted(ids, **filters, everything=everything)
    with inspecting(broker) as inspection:
        if ids:
            outcomes = change(inspection, ids, {State.DEAD: ("replayed", inspection.replay)})
            end(outcomes, {"replayed"}, as_json=as_json)
            return
        chosen = [stored.id for stored in wanted.find(inspection, State.DEAD)]
        replayed = paged(chosen, inspection.replay)
    _report("replayed", chosen, replayed, as_json=as_json)


@command.command("purge")
@_choosing
@sure
@common
def purge(
    *,
    ids: tuple[str, ...],
    everything: bool,
    yes: bool,
    broker: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Delete dead jobs for good."""
    wanted = _wanted(ids, **filters, everything=everything)
    with inspecting(broker) as inspection:
        if ids:
            _ask("Delete", len(set(ids)), broker, yes=yes)
            outcomes = change(inspection, ids, _deleting(inspection, "deleted"))
            end(outcomes, {"deleted"}, as_json=as_json)
            return
        chosen = [stored.id for stored in wanted.find(inspection, State.DEAD)]
        _ask("Delete", len(chosen), broker, yes=yes)
        deleted = paged(chosen, partial(inspection.delete, state=State.DEAD))
    _report("deleted", chosen, deleted, as_json=as_json)


def _wanted(
    ids: Sequence[str],
    *,
    queue: str | None,
    function: str | None,
    older_than: float,
    limit: int | None,
    everything: bool | None = None,
) -> Filters:
    """Return the filters; *everything* None means that none are needed.

    Raises:
        click.UsageError: It is not clear which jobs are meant.
    """
    wanted = Filters(queue, function, older_than, limit)
    if ids and (wanted.given or everything):
        raise click.UsageError("give ids, or say which by options, not both")
    if everything is False and not ids and not wanted.given:
        raise click.UsageError(
            "say which: ids, --queue, --function, --older-than or --limit; or --all"
        )
    return wanted


def _deleting(inspection: Inspection, word: str) -> dict[State, tuple[str, Any]]:
    return {State.DEAD: (word, partial(inspection.delete, state=State.DEAD))}


def _ask(verb: str, count: int, broker: str | None, *, yes: bool) -> None:
    if count:
        where = place(configured(broker))
        confirm(f"{verb} {several(count, 'dead job')} from {where}?", yes=yes)


def _report(word: str, chosen: Sequence[str], changed: set[str], *, as_json: bool) -> None:
    """Say what became of jobs that were chosen by filters: one that moved meanwhile is no failure."""
    if as_json:
        print_json([{"id": id_, "result": word} for id_ in chosen if id_ in changed])
    else:
        click.echo(f"{word} {several(len(changed), 'dead job')}")
