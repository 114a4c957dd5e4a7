"""What clients reach: their broker, its store, the jobs that are stored there.

An `Access` holds what a `Client` and those made from it by ``using`` share, and which broker and
connection this one has; everything else of a client is verbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from goose.brokers import name_of
from goose.brokers.base import Broker, Inspector
from goose.errors import Unsupported
from goose.features.asking import Claimed, claimed
from goose.sealing import Sealed
from goose.sending import Door, Root, instead
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.inspecting import Inspection
    from goose.metrics.enqueuing import Meter
    from goose.stores.base import Store


class Access:
    """One client's connections, made when they are first needed. Any thread may use it."""

    _root: Root
    _broker: str | Broker | None
    _connection: Any

    @property
    def broker(self) -> Broker:
        """The broker jobs go to."""
        return self._root.link(self._broker).broker

    @property
    def store(self) -> Store:
        """What remembers everything that is not a job; closed by `close`.

        Raises:
            Unsupported: The broker has none, and none is configured.
        """
        return self._root.link(self._broker).store(self.settings).open()

    def meter(self) -> Meter | None:
        """Return what counts the jobs it stores; None if nobody wants to know."""
        return self._root.meter()

    @property
    def settings(self) -> Settings:
        """What decides where no option does."""
        return self._root.settings()

    @property
    def inspector(self) -> Inspection:
        """Looks at stored jobs and changes them.

        Raises:
            Unsupported: The broker cannot do that.
        """
        from goose.features.traits import Traits
        from goose.inspecting import Inspection  # operators' needs are not every program's

        broker = self.broker
        if not isinstance(broker, Inspector):
            raise Unsupported(
                f"{name_of(broker)} cannot list its jobs; use the tools of the server itself"
            )
        traits = Traits(broker, lambda: self.store)
        return Inspection(broker, max_bytes=self.settings.max_bytes, traits=traits)

    def close(self) -> None:
        """Close the connections this client made, also those of all clients that share them.

        A broker that was given as an object stays open. A later call connects again.
        """
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def claimed(self, sealed: Sequence[Sealed]) -> Claimed:
        """Claim what the features of these jobs need; return what is left to send.

        Raises:
            Unsupported: They need a store, and there is none.
            GooseError: They cannot be what they ask for.
        """
        if instead.get() is not None or not any(job.traits for job, _ in sealed):
            return Claimed(sealed)
        return claimed(sealed, self.broker, self.store)

    def door(self, later: bool) -> Door:
        """Return where envelopes that are due *later*, or ready, are handed over."""
        return self._root.link(self._broker).door(self._connection, later=later)
