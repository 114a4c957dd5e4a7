"""When to leave a queue alone, because what its jobs need is away.

A *circuit* is closed while jobs run, and opens when so many in a row have failed: then nothing
more is taken from that queue for a pause. After it one job, the probe, is run. If it fails the next
pause is twice as long; if it ends well the circuit is closed again. Jobs that wait meanwhile have
started nothing, so no attempt of theirs is counted. Other queues are not concerned.

`Line` is the whole logic, for one queue and without a clock of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from goose import values
from goose.plugins import nearest

Change = Literal["opened", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """When the circuit of a queue opens, and for how long. Durations are seconds.

    Raises:
        ValueError: A value is out of range.
    """

    failures: int = 5
    """Executions in a row that failed after which it opens."""
    pause: float = 30.0
    """How long nothing is taken after that, before one job is tried."""
    longest: float = 600.0
    """The pause doubles with each probe that fails, up to this."""

    def __post_init__(self) -> None:
        values.count(self.failures)
        values.positive_duration(self.pause)
        if self.longest < self.pause:
            raise ValueError(f"longest = {self.longest:g} s is less than pause = {self.pause:g} s")


def parse(value: object) -> Circuit:
    """Return the circuit that a table describes, or the number of failures alone.

    Raises:
        ValueError: A field is unknown or holds nonsense.
        TypeError: It is neither.
    """
    if isinstance(value, Circuit):
        return value
    if not isinstance(value, Mapping):
        return Circuit(failures=values.count(value))
    known = [field.name for field in fields(Circuit)]
    for name in value:
        if name not in known:
            raise ValueError(f"{name!r} is no field of a circuit{nearest(str(name), known)}")
    default = Circuit()
    pause = values.positive_duration(value.get("pause", default.pause))
    return Circuit(
        failures=values.count(value.get("failures", default.failures)),
        pause=pause,
        longest=values.positive_duration(value.get("longest", max(default.longest, pause))),
    )


class Line:
    """The circuit of one queue as one process sees it. Instants are of whatever clock is passed in."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.failures = 0
        """In a row, while it is closed."""
        self.pause = 0.0
        """Seconds of the last pause; 0 while it is closed."""
        self.until = 0.0
        """When the pause ends."""
        self.probe: object = None
        """What stands for the job that is tried, while one is."""

    @property
    def is_open(self) -> bool:
        """Whether jobs wait, but perhaps for a probe."""
        return self.pause > 0

    def wants_probe(self, now: float) -> bool:
        """Say whether a job is to be tried."""
        return self.is_open and now >= self.until and self.probe is None

    def tried(self, probe: object) -> None:
        """Note that *probe* is the job that is tried."""
        self.probe = probe

    def ended(self, which: object, now: float, *, failed: bool | None) -> Change | None:
        """Note that the job *which* stands for has ended; return what that changes.

        Args:
            which: As for `tried`; jobs that were under way when the circuit opened prove nothing.
            now: This instant.
            failed: Whether its execution failed; None: it ended without telling.
        """
        if self.is_open:
            if self.probe is None or which != self.probe:
                return None
            self.probe = None
            if failed is None:
                return None  # another one is tried
            if failed:
                self.open(now, min(2 * self.pause, self.circuit.longest))
                return "opened"
            self.close()
            return "closed"
        if failed is None:
            return None
        self.failures = self.failures + 1 if failed else 0
        if self.failures < self.circuit.failures:
            return None
        self.open(now, self.circuit.pause)
        return "opened"

    def open(self, now: float, pause: float) -> None:
        """Have nothing taken for *pause* seconds."""
        self.pause, self.until, self.probe = pause, now + pause, None

    def close(self) -> None:
        """Have everything taken again."""
        self.failures, self.pause, self.probe = 0, 0.0, None
