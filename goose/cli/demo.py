"""``goose demo``: see real jobs run while workers are killed under them."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from goose.brokers import redact
from goose.cli.showing import aligned, print_json
from goose.demo import files
from goose.demo.play import Plan, Show, play
from goose.demo.verdict import Report
from goose.errors import ConfigError

LINE_EVERY = 2.0
"""Seconds between two lines of progress where there is no terminal."""


@click.command("demo")
@click.argument("directory", metavar="[DIR]", required=False,
                type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.option("--broker", metavar="URL", help="Where the jobs go.  [a temporary SQLite file]")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N",
    help="How many jobs; they go over the files again if need be.  [one for each file]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(*, directory: Path | None, broker: str | None, jobs: int | None, as_json: bool) -> None:
    """Measure every file under DIR by a job: hash, lines, words, compressed size.

    DIR is Goose's own source and Python's standard library if not given. Some jobs are
    scheduled, some fail at first. Two worker processes run them, and one is killed twice
    in the middle. In the end every result is compared with a measurement made without jobs.

    \b
    Ends with
      0    nothing lost, nothing wrong, both kills hit jobs under way
      1    anything of that is not so
      2    an argument is wrong      4    the broker cannot be reached, or refuses
    """  # noqa: D301 - \b is click's mark for text to keep as it is
    found = files.under(directory) if directory else files.installed()
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in found.skipped.items())
    if not found.files:
        why = f" (left out: {skipped})" if skipped else ""
        raise ConfigError(
            f"DIR {str(directory)!r} holds no file to work on{why}; name another, or none for "
            "Python's own sources"
        )
    where = str(directory) if directory else "Goose and Python's standard library"
    click.echo(f"{len(found.files):,} files of {where}", err=True)
    if skipped:
        click.echo(f"left out: {skipped}", err=True)
    told = "a temporary SQLite file" if broker is None else redact(broker)
    click.echo(f"broker: {told}", err=True)
    with _ended_kindly(), _watching() as show:
        report = play(Plan(found.files, broker, jobs), show)
    if as_json:
        print_json(report_fields(report))
    else:
        _print(report)
    for problem in report.problems:
        click.echo(f"goose: {problem}", err=True)
    if report.problems:
        raise click.exceptions.Exit(1)


@contextmanager
def _ended_kindly() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo as an exception does, so that it ends its workers."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {n: signal.signal(n, leave) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the report --------------------------------------------------------------------------


def report_fields(report: Report) -> dict[str, object]:
    """Return *report* as JSON; the keys are documented in docs/cli.md and stay."""
    fields: dict[str, object] = dataclasses.asdict(report)
    for name in ("seconds", "latency_p50", "latency_p99"):
        fields[name] = round(getattr(report, name), 3)
    fields["jobs_per_second"] = round(report.jobs_per_second, 1)
    return fields | {"ok": not report.problems}


def _rows(report: Report) -> list[tuple[str, str, str]]:
    hit = " and ".join(str(kill.jobs) for kill in report.kills)
    twice = "had ended, but a kill came before that was noted" if report.run_twice else ""
    return [
        ("jobs", f"{report.jobs:,}", ""),
        ("done", f"{report.done:,}", ""),
        ("scheduled", f"{report.scheduled:,}", "due only after the others had begun"),
        ("retried", f"{report.retried:,}", "failed the first time"),
        (
            "killed",
            f"{len(report.kills):,}",
            f"processes, with {hit} jobs under way" if hit else "",
        ),
        ("recovered after kill", f"{report.recovered:,}", "run from the start by another process"),
        ("run twice", f"{report.run_twice:,}", twice),
        ("lost", f"{report.lost:,}", ""),
        ("wrong", f"{report.wrong:,}", "of the results"),
        ("jobs/s", f"{report.jobs_per_second:,.0f}", ""),
        ("latency p50", f"{report.latency_p50:.2f} s", "from due to done, most of it in line"),
        ("latency p99", f"{report.latency_p99:.2f} s", ""),
    ]


def _print(report: Report) -> None:
    rows = _rows(report)
    if not (sys.stdout.isatty() and find_spec("rich") is not None):
        for line in aligned(rows, (False, True, False)):
            click.echo(line)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", style="red" if report.problems else "green")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


# --- progress ----------------------------------------------------------------------------


class _Lines:
    """Progress as lines on standard error, now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0

    def progress(self, done: int, total: int) -> None:
        """Print how far it is, if that has not been said lately."""
        if self._clock() >= self._next:
            self._next = self._clock() + LINE_EVERY
            self.say(f"{done:,} of {total:,} jobs done")

    def say(self, text: str) -> None:
        """Print an event."""
        click.echo(text, err=True)


class _Bar:
    """Progress as a bar that moves, on a terminal."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bar = progress.add_task("jobs done", total=None)

    def progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._bar, completed=done, total=total)

    def say(self, text: str) -> None:
        """Print an event above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)


@contextmanager
def _watching() -> Iterator[Show]:
    if not (sys.stderr.isatty() and find_spec("rich") is not None):
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        yield _Bar(progress)
