"""The checks of ``goose doctor``. Each yields what it finds, and changes nothing anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from goose import brokers, metrics, middleware
from goose.brokers.base import Broker, Capability, Inspector, State
from goose.brokers.examining import Examined
from goose.calls import Offer
from goose.cli import findings
from goose.cli.findings import Finding, Kind
from goose.errors import (
    BrokerError,
    ConfigError,
    GooseError,
    MissingDriver,
    SignatureMismatch,
    UnknownFunction,
    Unsupported,
)
from goose.inspecting import Inspection, StoredJob
from goose.plugins import load
from goose.settings import Settings

SKEW = 2.0
"""Seconds by which clocks may differ."""
OLD = 3600.0
"""Seconds a job may be ready."""
SAMPLE = 10_000
"""Stored jobs that are looked at, at most."""
DESCRIPTORS = 256
"""Open files below which there are few."""


def configuration(chosen: Settings) -> Iterator[Finding]:
    """Look at the settings, and at what they name."""
    if "broker" not in chosen.origins:
        yield Finding(findings.DEFAULT_BROKER, brokers.redact(str(chosen.broker)))
    if chosen.timeout and chosen.hard_timeout and chosen.timeout > chosen.hard_timeout:
        detail = f"timeout {chosen.timeout:g} s, hard_timeout {chosen.hard_timeout:g} s"
        yield Finding(findings.TIMEOUT_ABOVE_HARD, detail)
    parts: list[tuple[str, Any, Any]] = [
        *(("middleware", spec, middleware.connect) for spec in chosen.middleware),
        *(("before_enqueue", spec, _loaded) for spec in chosen.before_enqueue),
        *(("resources", spec, _loaded) for spec in chosen.resources),
        *(("metrics", spec, _metrics) for spec in (*chosen.metrics, *chosen.client_metrics)),
    ]
    for name, spec, connect in parts:
        try:
            connect(spec)
        except Exception as error:  # noqa: BLE001 - whatever a module of the user's raises
            yield Finding(findings.WRONG_PART, f"{name} {spec!r}: {_said(error)}", {"name": name})


def _loaded(spec: Any) -> None:
    if isinstance(spec, str):
        load(spec, kind="object")


def _metrics(spec: Any) -> None:
    if isinstance(spec, str) and spec.startswith("prometheus:"):
        return  # to try it would take the port from a worker that runs
    close = getattr(metrics.connect(spec), "close", None)
    if close is not None:
        close()


def environment(_chosen: Settings) -> Iterator[Finding]:
    """Look at what the process is given by the system."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < DESCRIPTORS:
        yield Finding(findings.FEW_DESCRIPTORS, f"{soft} may be open", {"limit": soft})


def modules(chosen: Settings) -> tuple[Offer | None, list[Finding]]:
    """Import the modules whose functions may run; return what they offer, and what is wrong."""
    if not chosen.allow:
        return None, [Finding(findings.UNNAMED_MODULES, "")]
    offer = Offer(chosen.allow)
    try:
        offer.load()
    except ConfigError as error:
        return None, [Finding(findings.BAD_MODULE, str(error))]
    if not offer.functions():
        return offer, [Finding(findings.EMPTY_MODULE, ", ".join(chosen.allow))]
    return offer, []


# --- the broker ------------------------------------------------------------------------------


def broker(chosen: Settings) -> tuple[Broker | None, str, list[Finding]]:
    """Connect to the broker; return it, what its server is, and what is wrong with it."""
    found: list[Finding] = []
    server = ""
    where = brokers.redact(chosen.broker) if isinstance(chosen.broker, str) else "the broker"
    try:
        made = brokers.connect(chosen.broker)
        if Capability.SHARED not in made.capabilities:
            return None, "", [Finding(findings.PRIVATE_BROKER, where)]
        if isinstance(made, Inspector):
            made.queues()
        else:
            found.append(Finding(findings.NO_INSPECTOR, where))
        server, more = _server(made)
        found += more
    except MissingDriver as error:
        # It names the broker itself, and ends in the line to type.
        detail, _, line = str(error).rpartition(": ")
        kind = replace(findings.NO_DRIVER, fix=line) if detail else findings.NO_DRIVER
        return None, server, [*found, Finding(kind, detail or line)]
    except (ConfigError, BrokerError) as error:
        return None, server, [*found, Finding(_trouble(error), f"{where}: {error}")]
    return made, server, found


def _trouble(error: GooseError) -> Kind:
    from goose.errors import BrokerUnavailable

    return findings.UNREACHABLE if isinstance(error, BrokerUnavailable) else findings.REFUSED


def _server(made: Broker) -> tuple[str, list[Finding]]:
    """Return what the server behind *made* is, and what is found about it, if the broker can tell."""
    if not isinstance(made, Examined):
        return "", []
    seen = made.examine()
    found = [*seen.findings]
    if seen.ahead is not None and abs(seen.ahead) > SKEW:
        detail = f"by {seen.ahead:+.1f} s"
        found.insert(0, Finding(findings.CLOCK_SKEW, detail, {"seconds": seen.ahead}))
    return seen.server, found


# --- what is stored --------------------------------------------------------------------------


def queues(chosen: Settings, inspection: Inspection) -> Iterator[Finding]:
    """Look at how full the queues are, and whether anybody is meant to empty them."""
    served = {share.queue for share in chosen.worker_queues}
    for stats in inspection.queues():
        waiting = sum(stats.counts.get(state, 0) for state in (State.READY, State.SCHEDULED))
        about = {"queue": stats.queue}
        if waiting and stats.queue not in served:
            detail = f"{waiting:,} in {stats.queue}"
            yield Finding(findings.UNSERVED_QUEUE, detail, {**about, "jobs": waiting})
        if stats.oldest is not None and stats.oldest > OLD:
            detail = f"the oldest in {stats.queue} for {stats.oldest / 3600:.1f} h"
            yield Finding(findings.OLD_JOBS, detail, {**about, "seconds": stats.oldest})
        if dead := stats.counts.get(State.DEAD):
            yield Finding(findings.DEAD_JOBS, f"{dead:,} in {stats.queue}", {**about, "jobs": dead})


def _seen(inspection: Inspection, state: State, queue: str, limit: int) -> Iterator[StoredJob]:
    """Yield jobs in *state*, none where the broker cannot show any."""
    with suppress(Unsupported):
        yield from inspection.find(state, queue, limit=limit)


def jobs(chosen: Settings, inspection: Inspection, offer: Offer | None) -> Iterator[Finding]:
    """Look at whether stored jobs can be run by the modules of *offer*."""
    served = {share.queue for share in chosen.worker_queues}
    unknown: Counter[str] = Counter()
    mismatched: Counter[tuple[str, str]] = Counter()
    broken: Counter[str] = Counter()
    seen = 0
    for queue in sorted(served):
        for state in (State.READY, State.SCHEDULED, State.RUNNING):
            for stored in _seen(inspection, state, queue, SAMPLE - seen):
                seen += 1
                if stored.job is None:
                    broken[stored.problem] += 1
                    continue
                if offer is None:
                    continue
                try:
                    offer.resolve(stored.job.fn).decode(stored.job.args, stored.job.kwargs)
                except UnknownFunction:
                    unknown[stored.job.fn] += 1
                except SignatureMismatch as error:
                    mismatched[stored.job.fn, str(error)] += 1
    for fn, count in unknown.most_common():
        yield Finding(
            findings.UNKNOWN_FUNCTION, f"{count:,} of {fn}", {"function": fn, "jobs": count}
        )
    for (fn, why), count in mismatched.most_common():
        yield Finding(
            findings.WRONG_ARGUMENTS,
            f"{count:,} of {fn}: {why}",
            {"function": fn, "jobs": count},
        )
    for why, count in broken.most_common():
        yield Finding(findings.UNDECODABLE, f"{count:,}: {why}", {"jobs": count})


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, GooseError) else f"{type(error).__name__}: {error}"
