"""What a client leads to besides enqueueing: its broker, the store, and stored jobs.

A base class of `goose.Client`, for its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from goose.brokers import name_of
from goose.brokers.base import Broker, Inspector
from goose.errors import Unsupported
from goose.sending import Destination, Root
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.inspecting import Inspection
    from goose.metrics.enqueuing import Meter
    from goose.stores.base import Store


class Access:
    """What every client has, whatever its options."""

    _root: Root
    _to: Destination

    @property
    def broker(self) -> Broker:
        """The broker jobs go to."""
        return self._root.link(self._to.broker).broker

    @property
    def store(self) -> Store:
        """What remembers everything that is not a job; closed by `close`.

        Raises:
            Unsupported: The broker has none, and none is configured.
        """
        return self._root.link(self._to.broker).store(self.settings).open()

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
