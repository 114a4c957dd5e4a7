"""``goose health``: say whether a worker is well, for probes that run a command.

It reads the heartbeat file of a worker, and nothing else: no application, no broker.
"""

from __future__ import annotations

import os

import click

from goose.worker.heartbeat import MAX_AGE, read


@click.command("health")
@click.argument("file", required=False)
@click.option("--ready", is_flag=True, help="Ask whether jobs are taken, not only for life.")
@click.option(
    "--max-age", type=click.FloatRange(min=0, min_open=True), default=MAX_AGE, show_default=True,
    metavar="SECONDS", help="Age from which the file counts for nothing.",
)  # fmt: skip
def command(file: str | None, *, ready: bool, max_age: float) -> int:
    """Say whether the worker that keeps FILE is well: exit code 0 if it is, else 1.

    FILE is what `goose worker --heartbeat-file` was given; left out it is GOOSE_HEARTBEAT_FILE.
    """
    path = file or os.environ.get("GOOSE_HEARTBEAT_FILE")
    if not path:
        raise click.UsageError("name the heartbeat file, or set GOOSE_HEARTBEAT_FILE")
    alive, is_ready, why = read(path, max_age)
    well = is_ready if ready else alive
    click.echo(why if not alive or ready else "alive", err=not well)
    return 0 if well else 1
