"""The wire of a world with features: it leads to a store, too, and shows jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from goose.brokers.base import Page, QueueStats, Session, State, Stored
from goose.jobs import Envelope
from goose.stores.base import Operation, Store, Verbs
from goose.stores.memory import MemoryStore
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.timeline import Died
from goose.testing.simulator.wire import Wire

T = TypeVar("T")

STORE_VERBS = frozenset({"apply", "scan", "now"})
"""What calls to the store are called where faults are drawn."""


class SimulatedStore(Verbs):
    """A place's connection to the store; its calls fail as those to the broker do.

    Args:
        store: What everybody shares.
        call: Makes a call of that name, with its faults.
    """

    def __init__(self, store: Store, call: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._store = store
        self._call = call

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`."""
        done: Sequence[Any] = self._call("apply", lambda: self._store.apply(operations))
        return done

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """See `Store.scan`."""
        look = lambda: self._store.scan(prefix, limit=limit, after=after)  # noqa: E731
        found: Sequence[tuple[str, bytes]] = self._call("scan", look)
        return found

    def now(self) -> float:
        """See `Store.now`."""
        instant: float = self._call("now", self._store.now)
        return instant

    def close(self) -> None:
        """Do nothing: the store is everybody's."""


class KeeperWire(Wire):
    """A `Wire` that leads to a store, too: a `Keeper`."""

    def _call(
        self,
        verb: str,
        effect: Callable[[], T],
        record: Callable[[T], None] = lambda result: None,
        session: Session | None = None,
    ) -> T:
        if not self._place.alive:  # what a process would have cleaned up, had it not been killed
            raise Died
        return super()._call(verb, effect, record, session)

    def open_store(self) -> Store:
        """See `Keeper.open_store`."""
        return SimulatedStore(MemoryStore(self._broker), self._ask)

    def _ask(self, verb: str, effect: Callable[[], Any]) -> Any:
        ledger = self._ledger
        assert isinstance(ledger, FeatureLedger)
        return self._call(verb, effect, lambda _: ledger.heard(self._place))


class ShowingWire(KeeperWire):
    """One that shows the jobs that are stored, which not every broker can: an `Inspector`."""

    def queues(self) -> Sequence[QueueStats]:
        """See `Inspector.queues`."""
        return self._call("queues", self._broker.queues)

    def count(self, state: State, queue: str | None = None) -> int:
        """See `Inspector.count`."""
        return self._call("count", lambda: self._broker.count(state, queue))

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """See `Inspector.page`."""
        return self._call("page", lambda: self._broker.page(state, queue, limit=limit, after=after))

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the contract's own name
        """See `Inspector.find`."""
        return self._call("find", lambda: self._broker.find(id))

    def promote(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.promote`."""
        return self._call("promote", lambda: self._broker.promote(ids), self._ledger.promoted)

    def prioritise(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.prioritise`."""
        return self._call("prioritise", lambda: self._broker.prioritise(ids))

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """See `Inspector.delete`."""
        ledger = self._ledger
        assert isinstance(ledger, FeatureLedger)
        return self._call("delete", lambda: self._broker.delete(ids, state=state), ledger.deleted)

    # Nobody does that here: the checker would have to be told.

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """Not part of these worlds."""
        raise NotImplementedError

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Not part of these worlds."""
        raise NotImplementedError
