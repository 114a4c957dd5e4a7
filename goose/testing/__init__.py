"""Tools for tests: of jobs, of brokers, and of what happens when things break.

* `BrokerSuite`: the conformance suite, for authors of brokers,
* `FaultyBroker`, `Fault`, `Crash`: a broker that fails where it is told to.

Each is imported when it is first asked for, so that none costs what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goose.testing.faults import Crash, Fault, FaultyBroker
    from goose.testing.suite import BrokerSuite

_HOMES = {
    "BrokerSuite": "goose.testing.suite",
    "Crash": "goose.testing.faults",
    "Fault": "goose.testing.faults",
    "FaultyBroker": "goose.testing.faults",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = ["BrokerSuite", "Crash", "Fault", "FaultyBroker"]
