"""What commands on stored jobs have in common: which broker, which jobs, and whether really.

A command that destroys chooses its jobs first, by their ids, says how many they are, and
then changes exactly those, each only if it is still in the state it was chosen in. What
happens to a job in between is nobody's mistake: it is left alone and reported.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from goose import settings, values
from goose.brokers.base import Capability, State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import ConfigError, Unsupported
from goose.inspecting import PAGE, Inspection, StoredJob
from goose.jobs import check_queue
from goose.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def checked(parse: Callable[[str], object]) -> Callable[..., object]:
    """Return a callback for an option that *parse* understands; others are usage errors."""

    def callback(_ctx: click.Context, _option: click.Parameter, value: str | None) -> object:
        try:
            return None if value is None else parse(value)
        except (ConfigError, ValueError) as error:
            raise click.BadParameter(f"{value!r}: {error}") from None

    return callback


LIMIT = click.IntRange(min=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs of a state are meant."""

    queue: str | None
    function: str | None
    older_than: float
    """Seconds."""
    limit: int | None = None

    @property
    def given(self) -> bool:
        """Whether anything narrows the choice."""
        return self != Filters(None, None, 0.0)

    def find(self, inspection: Inspection, state: State | None) -> Iterator[StoredJob]:
        """Yield the jobs in *state* (None: in any) that are meant."""
        return inspection.find(
            state, self.queue, fn=self.function, older_than=self.older_than, limit=self.limit
        )


def filtering(command: F) -> F:
    """Add the options from which `Filters` are made, but for the limit."""
    for option in (
        click.option(
            "--older-than", callback=checked(values.duration), default="0", metavar="TIME",
            help="Only jobs in their state for so long: 90s, 12h, 7d.",
        ),
        click.option("--function", metavar="NAME", help="Only jobs of this module:name."),
        click.option("--queue", callback=checked(check_queue), help="Only jobs of this queue."),
    ):  # fmt: skip
        command = option(command)
    return command


def common(command: F) -> F:
    """Add the options every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON array."),
        click.option("--broker", metavar="URL", help="Where the jobs are.  [as configured]"),
    ):
        command = option(command)
    return command


def sure(command: F) -> F:
    """Add the option that skips the question of `confirm`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def configured(broker: str | None) -> Settings:
    """Return the settings, with the broker of a flag laid over them.

    Raises:
        ConfigError: A setting is wrong.
    """
    chosen = settings.load()
    if broker is None:
        return chosen
    # Of an empty one too: a script whose variable is not set must not reach the configured broker.
    return settings.with_given(chosen, {"broker": broker}, "--")


@contextmanager
def opened(broker: str | None, what: str = "jobs", *, kept: bool = False) -> Iterator[Client]:
    """Open the broker at that URL, or the configured one, and its store.

    Args:
        broker: The flag's URL, if it was given.
        what: What the command is about, such as ``batches``, for messages.
        kept: Whether that is in the store, which may be another place than the broker.

    Raises:
        Unsupported: It is inside of another process.
    """
    chosen = configured(broker)
    missing = missing_file((kept and chosen.store) or chosen.broker)
    if missing is not None:
        # Looking must not make a database; an empty one answers as it would.
        click.echo(f"{missing} does not exist: nothing was ever stored there", err=True)
        with Client(MemoryBroker(), settings=Settings()) as client:
            yield client
        return
    with Client(settings=chosen) as client:
        apart = kept and chosen.store is not None
        if Capability.SHARED not in client.broker.capabilities and not apart:
            raise Unsupported(
                f"{place(chosen)} keeps its {what} inside the process that uses it, where no command "
                "can reach them; use goose.Client(broker) there, or another broker"
            )
        yield client


@contextmanager
def inspecting(broker: str | None) -> Iterator[Inspection]:
    """Open the stored jobs, as `opened`.

    Raises:
        Unsupported: The broker cannot list its jobs, or has them in another process.
    """
    with opened(broker) as client:
        yield client.inspector


def missing_file(url: object) -> Path | None:
    """Return the absolute path of the SQLite file that *url* names, if it is not there.

    Raises:
        ConfigError: The URL is wrong.
    """
    if not isinstance(url, str) or not url.startswith("sqlite:"):
        return None
    from goose.brokers.sqlite.options import read  # the broker's own reading: names are quoted

    path = Path(read(url, {}).path)
    return None if path.exists() else path


def place(chosen: Settings) -> str:
    """Return the broker of *chosen* as messages show it."""
    # Brings the engine, which listing jobs can do without.
    from goose.cli.worker import shown_broker

    return shown_broker(chosen)


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether to go on; *yes* means it has been answered. A no ends the command, exit code 1.

    Raises:
        click.UsageError: There is nobody to ask.
    """
    if yes:
        return
    if not (sys.stdin and sys.stdin.isatty()):  # None where it is closed
        raise click.UsageError(
            f"this needs a yes, and there is no terminal to ask on: pass --yes ({question})"
        )
    if not click.confirm(question, err=True):
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(1)


def several(count: int, what: str = "job") -> str:
    """Return *count* and the word for it."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def paged(ids: Sequence[str], change: Callable[[Sequence[str]], Sequence[str]]) -> set[str]:
    """Apply *change* to *ids*, a bounded number at a time; return those it changed."""
    changed: set[str] = set()
    for at in range(0, len(ids), PAGE):
        changed.update(change(ids[at : at + PAGE]))
    return changed
