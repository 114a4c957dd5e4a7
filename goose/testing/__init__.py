"""Tools for tests: of jobs, of brokers, and of what happens when things break.

* `BrokerSuite`, `StoreSuite`: the conformance suites, for authors of brokers and stores,
* `FaultyBroker`, `Fault`, `Crash`: a broker that fails where it is told to,
* `play`, `Scenario`: the real engine in a simulated world, by seed,
* `inline`, `drain`, `run_one`, `run_again`: jobs run in the test's own thread,
* `assert_enqueued`, `refute_enqueued`: what was enqueued,
* `broker_down`, `reply_lost`: enqueues that fail,
* `configured`: settings for a while. Fixtures for pytest are in `goose.testing.plugin`.

Each is imported when it is first asked for, so that none costs what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goose.testing.asserting import assert_enqueued, refute_enqueued
    from goose.testing.configuring import configured
    from goose.testing.faults import Crash, Fault, FaultyBroker
    from goose.testing.running import broker_down, drain, inline, reply_lost, run_again, run_one
    from goose.testing.simulator import Scenario, play
    from goose.testing.suite import BrokerSuite, StoreSuite

_HOMES = {
    "BrokerSuite": "goose.testing.suite",
    "Crash": "goose.testing.faults",
    "Fault": "goose.testing.faults",
    "FaultyBroker": "goose.testing.faults",
    "Scenario": "goose.testing.simulator",
    "StoreSuite": "goose.testing.suite",
    "assert_enqueued": "goose.testing.asserting",
    "broker_down": "goose.testing.running",
    "configured": "goose.testing.configuring",
    "drain": "goose.testing.running",
    "inline": "goose.testing.running",
    "play": "goose.testing.simulator",
    "refute_enqueued": "goose.testing.asserting",
    "reply_lost": "goose.testing.running",
    "run_again": "goose.testing.running",
    "run_one": "goose.testing.running",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = [
    "BrokerSuite",
    "Crash",
    "Fault",
    "FaultyBroker",
    "Scenario",
    "StoreSuite",
    "assert_enqueued",
    "broker_down",
    "configured",
    "drain",
    "inline",
    "play",
    "refute_enqueued",
    "reply_lost",
    "run_again",
    "run_one",
]
