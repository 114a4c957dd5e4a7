"""``goose done``: the jobs that a broker keeps after they are done."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from goose.brokers.completion import Archive, Finished
from goose.cli.choosing import LIMIT, checked, common, configured, place
from goose.cli.showing import print_json, print_table
from goose.clients import Client
from goose.errors import Undecodable, Unsupported
from goose.jobs import check_queue, decode


@click.command("done")
@click.option("--queue", callback=checked(check_queue), help="Only jobs of this queue.")
@click.option("--limit", type=LIMIT, default=50, metavar="N", help="The last N.  [50]")
@common
def command(*, queue: str | None, limit: int, broker: str | None, as_json: bool) -> None:
    """List jobs that are done, the last ones first, where the broker was told to keep them.

    With --json: id, queue, function, done_at, enqueued_at, attempt.
    """
    chosen = configured(broker)
    with Client(settings=chosen) as client:
        archive = client.broker
        if not isinstance(archive, Archive):
            raise Unsupported(
                f"{place(chosen)} forgets jobs that are done; PostgreSQL can keep them"
            )
        rows = [_fields(finished) for finished in archive.finished(queue, limit=limit)]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(
            [{name: "" if value is None else value for name, value in row.items()} for row in rows]
        )
    else:
        click.echo("no job that is done is kept there", err=True)


def _fields(finished: Finished) -> dict[str, object]:
    envelope = finished.envelope
    try:
        job = decode(envelope)
    except Undecodable:
        job = None
    return {
        "id": envelope.id,
        "queue": envelope.queue,
        "function": job.fn if job else None,
        "done_at": _iso(finished.at),
        "enqueued_at": _iso(job.enqueued_at) if job else None,
        "attempt": job.attempt if job else None,
    }


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds")
