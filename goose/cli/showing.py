"""How commands show stored jobs: as JSON for programs, as tables for people.

JSON is always one array of objects whose keys are documented in docs/cli.md and stay.
For people it is a table, drawn by rich where that is installed and the output is a
terminal, else plain aligned text. What a job holds was written by whoever can reach the
broker, so control characters never reach the terminal, and arguments are shown only where
they are asked for.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec

import click

from goose.brokers.base import State
from goose.inspecting import StoredJob
from goose.jobs import Failure

LINE = 100
"""Characters of an error or of arguments that a table shows."""
RIGHT = frozenset(
    {"ready", "scheduled", "running", "dead", "errors", "crashes", "waiting", "refused"}
)
"""Columns of numbers."""

Row = Mapping[str, object]


def print_json(items: object) -> None:
    """Print *items* as JSON, characters beyond ASCII escaped."""
    click.echo(json.dumps(items, indent=2))


def print_table(rows: Sequence[Row]) -> None:
    """Print *rows*, all of the same keys, under their keys; at least one."""
    columns = list(rows[0])
    cells = [[printable(row[column]) for column in columns] for row in rows]
    if _print_rich(columns, cells):
        return
    for line in aligned([columns, *cells], [column in RIGHT for column in columns]):
        click.echo(line)


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
    """Draw the table if rich can, without cutting or folding anything; say whether it has."""
    if not (sys.stdout.isatty() and find_spec("rich") is not None):
        return False
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in RIGHT else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))  # Text: what jobs hold is no markup
    console = Console()
    wide = console.options.update(max_width=100_000)
    if console.measure(table, options=wide).maximum > console.width:
        return False
    console.print(table)
    return True


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Return *rows* as lines with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def printable(value: object) -> str:
    """Return *value* as text that a terminal only shows: no control character is left in it."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- jobs --------------------------------------------------------------------------------


def job_fields(stored: StoredJob, *, args: bool = False, full: bool = False) -> dict[str, object]:
    """Return a stored job as JSON: every key is there, null where nothing is known.

    Args:
        stored: The job.
        args: Also its arguments.
        full: Also its arguments and all the rest, down to the stored bytes.
    """
    job = stored.job
    fields: dict[str, object] = {
        "id": stored.id,
        "state": stored.state.value,
        "queue": stored.queue,
        "group": stored.group,
        "function": job.fn if job else None,
        "at": stored.at.isoformat(),
        "enqueued_at": _iso(job.enqueued_at if job else None),
        "attempt": job.attempt if job else None,
        "crashes": job.crashes if job else None,
        "session": stored.session.key if stored.session else None,
        "failure": _failure_fields(job.failure, full=full) if job and job.failure else None,
        "problem": stored.problem or None,
    }
    if args or full:
        fields["args"] = list(job.args) if job else None
        fields["kwargs"] = dict(job.kwargs) if job else None
    if full:
        fields["retry"] = dict(job.retry) if job and job.retry else None
        fields["timeout"] = job.timeout if job else None
        fields["meta"] = dict(job.meta) if job else None
        fields["body"] = b64encode(stored.body).decode()
    return fields


def _failure_fields(failure: Failure, *, full: bool) -> dict[str, object]:
    fields: dict[str, object] = {
        "type": failure.type,
        "message": failure.message,
        "reason": failure.reason or None,
        "first_at": _iso(failure.first_at),
        "last_at": _iso(failure.last_at),
        "died_at": _iso(failure.died_at),
    }
    return fields | {"traceback": failure.traceback} if full else fields


def _iso(epoch: float | None) -> str | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat()


def print_jobs(jobs: Sequence[StoredJob], *, args: bool) -> None:
    """Print a table of *jobs*, at least one."""
    now = time.time()
    print_table([_row(stored, now, args=args) for stored in jobs])


def _row(stored: StoredJob, now: float, *, args: bool) -> Row:
    job = stored.job
    row: dict[str, object] = {
        "id": stored.id,
        "state": stored.state.value,
        "queue": stored.queue,
        "function": job.fn if job else "(undecodable)",
        "when": when(stored, now),
        "errors": job.attempt if job else "",
        "crashes": job.crashes if job else "",
    }
    if args:
        row["arguments"] = _short(_call(stored))
    return row | {"last error": _short(_error(stored))}


def _call(stored: StoredJob) -> str:
    job = stored.job
    if job is None:
        return ""
    given = [*map(json.dumps, job.args)]
    return ", ".join([*given, *(f"{name}={json.dumps(v)}" for name, v in job.kwargs.items())])


def _error(stored: StoredJob) -> str:
    job = stored.job
    if job is None:
        return stored.problem
    if job.deferred_since is not None and stored.state is State.SCHEDULED:
        return "left for other workers: this function was unknown, or had other parameters"
    if job.failure is None:
        return ""
    parts = [job.failure.reason, job.failure.type.removeprefix("builtins:"), job.failure.message]
    return ": ".join(filter(None, parts))


def _short(text: str) -> str:
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def when(stored: StoredJob, now: float) -> str:
    """Return since when, or from when, a job is what it is, seen at *now* (epoch seconds)."""
    ago = now - stored.at.timestamp()
    if stored.state is State.SCHEDULED:
        return f"in {lasting(-ago)}" if ago < 0 else "due"
    return f"{lasting(max(0.0, ago))} ago"


def lasting(seconds: float) -> str:
    """Return a duration in its two largest units: ``3 d 4 h``, ``12 s``."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count:,} {unit}")
    return " ".join(parts[:2])


def print_job(stored: StoredJob) -> None:
    """Print all there is to say about one job, a line each, its arguments among them."""
    fields = job_fields(stored, full=True)
    failure = fields.pop("failure") or {}
    body = fields.pop("body")
    assert isinstance(failure, dict)
    fields["at"] = f"{fields['at']} ({when(stored, time.time())})"
    if stored.job is None:
        fields["body"] = body
    fields |= {f"failure {key}": value for key, value in failure.items() if key != "traceback"}
    width = max(map(len, fields))
    for name, value in fields.items():
        if value not in (None, "", {}):
            shown = json.dumps(value) if isinstance(value, (list, dict)) else value
            click.echo(f"{name:<{width}}  {printable(shown)}")
    for line in str(failure.get("traceback", "")).splitlines():
        click.echo(f"  {printable(line)}")
