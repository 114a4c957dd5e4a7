"""``goose doctor``: look whether settings, broker, code and stored jobs fit together."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from goose import __version__, settings
from goose._words import several
from goose.brokers import redact
from goose.brokers.base import Inspector, Share
from goose.cli import checkups, choosing, findings
from goose.cli.findings import Finding
from goose.errors import BrokerError, ConfigError
from goose.inspecting import Inspection
from goose.settings import Settings

_QUIET = logging.NullHandler()
_SECRET = ("broker", "store", "metrics", "client_metrics")


@click.command("doctor")
@click.argument("modules", nargs=-1)
@click.option("--broker", metavar="URL", help="Where the jobs are.  [as configured]")
@click.option("--queues", help="What a worker takes from.  [as configured]")
@click.option("--strict", is_flag=True, help="Fail for warnings, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    modules: tuple[str, ...], broker: str | None, queues: str | None, *, strict: bool, as_json: bool
) -> int:
    """Look whether settings, broker, code and stored jobs fit together.

    MODULES are those whose functions a worker may run. Nothing is changed. Ends with 0 if
    there is no error (with --strict: no warning either), else with 1.
    """
    # What the broker would warn of in a log is among the findings.
    logging.getLogger("goose").addHandler(_QUIET)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    chosen: Settings | None = None
    server = ""
    try:
        chosen = _chosen(modules, broker, queues)
        server, found = _look(chosen)
    except ConfigError as error:
        found = [Finding(findings.WRONG_SETTING, str(error))]
    bad = ("error", "warning") if strict else ("error",)
    failed = any(finding.kind.severity in bad for finding in found)
    if as_json:
        click.echo(
            json.dumps(_as_json(_facts(chosen, server), found, failed), indent=2, default=str)
        )
    else:
        _show(_facts(chosen, server), found)
    return 1 if failed else 0


def _chosen(modules: tuple[str, ...], broker: str | None, queues: str | None) -> Settings:
    chosen = settings.load()
    given = {"allow": list(modules) or None, "broker": broker, "queues": queues}
    for name, value in given.items():
        if value is not None:
            chosen = settings.with_given(chosen, {name: value}, "argument ")
    return chosen


def _look(chosen: Settings) -> tuple[str, list[Finding]]:
    """Return what the broker's server is, and all that is found."""
    found = [*checkups.environment(chosen), *checkups.configuration(chosen)]
    offer, problems = checkups.modules(chosen)
    found += problems
    missing = choosing.missing_file(chosen.broker)
    if missing is not None:
        return "", found  # looking must not make a database, and in none there is nothing wrong
    broker, server, problems = checkups.broker(chosen)
    found += problems
    if broker is None:
        return server, found
    try:
        if isinstance(broker, Inspector):
            inspection = Inspection(broker, max_bytes=chosen.max_bytes)
            found += checkups.queues(chosen, inspection)
            found += checkups.jobs(chosen, inspection, offer)
    except BrokerError as error:
        found.append(Finding(findings.UNREACHABLE, str(error)))
    finally:
        broker.close()
    return server, found


def _facts(chosen: Settings | None, server: str) -> dict[str, str]:
    facts = {"goose": __version__, "python": platform.python_version(), "cwd": str(Path.cwd())}
    for name, origin in sorted(chosen.origins.items()) if chosen else ():
        value = getattr(chosen, name)
        if name in _SECRET:
            value = redact(value) if isinstance(value, str) else [redact(str(v)) for v in value]
        facts[name] = f"{_plain(value)}  ({origin})"
    if chosen and "broker" not in chosen.origins:
        facts["broker"] = f"{chosen.broker}  (default)"
    if server:
        facts["server"] = server
    return facts


def _plain(value: object) -> str:
    """Return *value* as a person would write it."""
    if isinstance(value, Share):
        return f"{value.queue}={value.weight}" if value.weight else value.queue
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    return str(value)


def _as_json(facts: dict[str, str], found: list[Finding], failed: bool) -> dict[str, object]:
    return {
        "ok": not failed,
        "facts": facts,
        "findings": [
            {
                "code": finding.kind.code,
                "severity": finding.kind.severity,
                "title": finding.kind.title,
                "detail": finding.detail,
                "meaning": finding.kind.meaning,
                "fix": finding.kind.fix,
                "about": finding.about,
            }
            for finding in found
        ],
    }


def _show(facts: dict[str, str], found: list[Finding]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"  {name:<{width}}  {value}")
    order = ("error", "warning", "note")
    for finding in sorted(found, key=lambda one: order.index(one.kind.severity)):
        kind = finding.kind
        detail = f": {finding.detail}" if finding.detail else ""
        click.echo(f"\n{kind.code} {kind.severity}: {kind.title}{detail}")
        click.echo(f"     {kind.meaning}\n     Fix: {kind.fix}")
    counts = [several(sum(f.kind.severity == s for f in found), s) for s in order]
    click.echo(f"\n{', '.join(counts)}")
