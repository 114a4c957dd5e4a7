"""Who looks on while a supervisor works, for the numbers and for those who ask how it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Witness(Protocol):
    """Told by the supervisor's thread; must not block."""

    def numbers(self, source: str, changes: Sequence[Any]) -> None:
        """Process *source* handed over these changes."""
        ...

    def registry(self, source: str, families: Sequence[Any]) -> None:
        """Process *source* has this in a registry of its own."""
        ...

    def ended(self, source: str) -> None:
        """Process *source* is gone."""
        ...

    def count(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        """The supervisor itself did this."""
        ...


class NoWitness:
    """Nobody looks on."""

    def numbers(self, source: str, changes: Sequence[Any]) -> None:
        """Do nothing."""

    def registry(self, source: str, families: Sequence[Any]) -> None:
        """Do nothing."""

    def ended(self, source: str) -> None:
        """Do nothing."""

    def count(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        """Do nothing."""
