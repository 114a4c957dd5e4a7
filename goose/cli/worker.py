"""``goose worker``: run jobs in worker processes under a supervisor."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import click

from goose import __version__, settings
from goose.brokers import redact
from goose.errors import ConfigError
from goose.settings import Settings
from goose.worker import host, logs, outlet

_LISTS = ("middleware", "metrics", "resources")


@click.command("worker")
@click.argument("modules", nargs=-1)
@click.option(
    "--queues", help="Names in strict order: mail,default; or by weight: mail=6,default=3."
)
@click.option("--concurrency", metavar="N", help="Sync functions at once per process.  [10]")
@click.option("--async-concurrency", metavar="N", help="Async functions at once.  [10 × N]")
@click.option("--processes", metavar="N", help="Worker processes.  [1]")
@click.option("--broker", metavar="URL", help="Where the jobs are.  [sqlite:///goose.db]")
@click.option("--middleware", metavar="NAME", multiple=True, help="module:name; repeatable.")
@click.option("--metrics", metavar="URL", multiple=True, help="URL or module:name; repeatable.")
@click.option("--resources", metavar="NAME", multiple=True, help="module:name; repeatable.")
@click.option(
    "--grace", metavar="TIME", help="How long running jobs may go on after a stop.  [30s]"
)
@click.option("--ttl", metavar="TIME", help="Silence after which a worker counts as dead.  [30s]")
@click.option("--hard-timeout", metavar="TIME", help="Kill the process of a job that runs longer.")
@click.option("--max-jobs", metavar="N", help="Replace a process once it ran at least N jobs.")
@click.option("--max-rss", metavar="SIZE", help="Replace a process larger than this: 500MB.")
@click.option("--reload", is_flag=True, help="Replace the processes when their source changes.")
@click.option(
    "--until-empty",
    is_flag=True,
    help="End when nothing is ready or running; what is scheduled does not count.",
)
@click.option(
    "--wait-broker", metavar="TIME", help="How long to wait for the broker at start.  [30s]"
)
@click.option(
    "--health", metavar="ADDRESS", help="Serve /livez, /readyz and /metrics: :8080 or host:8080."
)
@click.option("--heartbeat-file", metavar="PATH", help="Keep a file for `goose health`.")
@click.option(
    "--log-level", metavar="LEVEL", help="debug, info, warning, error or critical.  [info]"
)
@click.option("--log-format", metavar="FORMAT", help="text or json.  [text]")
def command(
    modules: tuple[str, ...],
    *,
    reload: bool,
    until_empty: bool,
    **flags: str | tuple[str, ...] | None,
) -> None:
    """Run jobs whose functions are defined in MODULES (packages with their submodules).

    What no flag says comes from GOOSE_* variables, goose.toml or [tool.goose] in
    pyproject.toml.

    \b
    Ends with
      0    all done (--until-empty), or stopped by TERM or INT
      2    a setting is wrong          3    a module cannot be imported
      4    no broker for --wait-broker, or refused
      130, 143   a second INT or TERM  1    anything else
    """  # noqa: D301 - click wants the backspace itself
    chosen = _choose(modules, flags)
    if not chosen.allow:
        raise click.UsageError(
            "name at least one module whose functions may run, for example: goose worker app.tasks"
        )
    outlet.unblock()
    logs.set_up(chosen.log_level, chosen.log_format, "supervisor")
    if chosen.log_format == "text":
        click.echo(banner(chosen), err=True)
    sys.exit(host.run(chosen, until_empty=until_empty, reload=reload))


def _choose(modules: tuple[str, ...], flags: dict[str, str | tuple[str, ...] | None]) -> Settings:
    """Return the settings with the flags laid over them."""
    chosen = settings.load()
    if modules:
        chosen = settings.with_given(chosen, {"allow": list(modules)}, "argument ")
    for name, value in flags.items():
        if value is None or value == ():
            continue
        given: Any = list(value) if name in _LISTS else value
        try:
            chosen = settings.with_given(chosen, {name: given}, "")
        except ConfigError as error:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option}{str(error).removeprefix(name)}") from None
    return chosen


def banner(chosen: Settings) -> str:
    """Return what a starting worker says about itself."""
    queues = ", ".join(
        f"{share.queue}={share.weight}" if share.weight else share.queue
        for share in chosen.worker_queues
    )
    asynchronous = chosen.async_concurrency or 10 * chosen.concurrency
    rows = {
        "broker": shown_broker(chosen),
        "queues": queues,
        "modules": ", ".join(chosen.allow),
        "running": f"{chosen.processes} process{'es' if chosen.processes > 1 else ''}, each "
        f"{chosen.concurrency} sync and {asynchronous} async jobs at once",
    }
    lines = [f"  {name:<8} {value}" for name, value in rows.items()]
    return "\n".join([f"goose {__version__}", *lines])


def shown_broker(chosen: Settings) -> str:
    """Return the broker's URL without secrets, the path of a file absolute."""
    from pathlib import Path

    url = chosen.broker
    if not isinstance(url, str):
        return type(url).__name__
    if urlsplit(url).scheme == "sqlite":
        path, question, query = url.removeprefix("sqlite:///").partition("?")
        url = f"sqlite:///{Path(path).absolute()}{question}{query}"
    return redact(url)
