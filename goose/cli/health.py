"""``goose health``: say whether a worker is well, for probes that run a command.

It reads the heartbeat file of a worker, and nothing else: no application, no broker. Of the
settings it looks at the one that says where that file is, and does not check the others.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from goose import _project, values
from goose.errors import ConfigError
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

    FILE is what `goose worker --heartbeat-file` was given; left out it is GOOSE_HEARTBEAT_FILE,
    else heartbeat_file in goose.toml or [tool.goose] in pyproject.toml.
    """
    path = file or os.environ.get("GOOSE_HEARTBEAT_FILE") or _configured()
    if not path:
        raise click.UsageError(
            "name the heartbeat file, or set GOOSE_HEARTBEAT_FILE, or heartbeat_file in goose.toml"
        )
    alive, is_ready, why = read(path, max_age)
    well = is_ready if ready else alive
    click.echo(why if not alive or ready else "alive", err=not well)
    return 0 if well else 1


def _configured() -> str | None:
    """Return the path in the project's file, found as `goose.settings` does; None if none is there.

    Raises:
        ConfigError: The file cannot be read, or the path is not a text.
    """
    file, table = _project.find(Path.cwd())
    if "heartbeat_file" not in table:
        return None
    path = table["heartbeat_file"]
    try:
        return values.text(path)
    except ValueError as error:
        raise ConfigError(f"{file}: heartbeat_file = {path!r}: {error}") from None
