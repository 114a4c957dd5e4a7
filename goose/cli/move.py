"""``goose move``: jobs to another broker, another queue, or both."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from goose.cli.choosing import checked, common, opened, several
from goose.cli.showing import print_json
from goose.jobs import check_queue
from goose.moving import Moved


@click.command("move")
@click.option("--queue", required=True, callback=checked(check_queue), help="Where they are.")
@click.option("--to", "target", metavar="URL", help="The broker they go to.  [the same]")
@click.option("--to-queue", callback=checked(check_queue), help="The queue they go to.  [the same]")
@common
def command(
    *, queue: str, target: str | None, to_queue: str | None, broker: str | None, as_json: bool
) -> None:
    """Move the scheduled and ready jobs of a queue, while workers are at work on either side.

    Running and dead jobs stay. If it is interrupted, none is lost: run it again.

    \b
    Ends with
      0    done                      1    anything else
      2    a setting is wrong, or a broker cannot do its part
      4    a broker cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is
    live = sys.stderr.isatty() and not as_json

    def show(moved: Moved) -> None:
        if live:
            click.echo(f"\r{moved.total:,} moved", err=True, nl=False)

    with opened(broker) as client:
        moved = client.move(target, queue=queue, to_queue=to_queue, on_progress=show)
    if live and moved.total:
        click.echo(err=True)
    if as_json:
        print_json([asdict(moved)])
        return
    click.echo(
        f"moved {several(moved.total)}: {moved.ready:,} ready, {moved.scheduled:,} scheduled"
    )
    if moved.left:
        click.echo(f"{several(moved.left)} had left the queue before", err=True)
