"""What a broker can tell ``goose doctor`` about its server: the contract, one companion protocol.

A broker that is `Examined` looks at the server it uses and says what that is, how its clock
stands to ours, and what about it endangers jobs. Looking changes nothing, and takes nothing from
a worker that runs. Each kind of finding has a code that is for good, since scripts and runbooks
know it: ``G3…`` are those of the brokers that come with Goose; yours begin with letters of your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Severity: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that may be wrong."""

    code: str
    severity: Severity
    title: str
    meaning: str
    """What it does to jobs."""
    fix: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is."""

    kind: Kind
    detail: str
    """What exactly, with names and numbers; no secrets."""
    about: Mapping[str, object] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What a look at the server gave."""

    server: str
    """Product and version, such as ``Redis 7.0.15``."""
    ahead: float | None = None
    """Seconds by which its clock is ahead of this machine's; None if it has none of its own, or several."""
    findings: Sequence[Finding] = ()


@runtime_checkable
class Examined(Protocol):
    """Can tell what its server is, and what about it endangers jobs."""

    def examine(self) -> Examination:
        """Look at the server; change nothing.

        Raises:
            BrokerUnavailable: It cannot be reached.
            BrokerError: It refused.
        """
        ...
