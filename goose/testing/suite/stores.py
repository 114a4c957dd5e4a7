"""The conformance suite of stores: every promise of `goose.stores.base`, as tests.

A store's author writes three lines and lets pytest run them::

    from goose.testing import StoreSuite

    class TestMyStore(StoreSuite):
        def make_store(self):
            return MyStore(...)          # holding nothing

`reopen` lets it test a second object on the same values, `other_namespace` what is apart, and
`advance` turns the store's clock in place of waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from goose.errors import StoreError
from goose.stores.base import (
    MAX_COUNT,
    MAX_KEY,
    MAX_VALUE,
    Add,
    Delete,
    Get,
    Increment,
    Operation,
    Put,
    Store,
    Swap,
)

LONG = 1000.0
"""Seconds that do not pass during a test."""


class StoreSuite:
    """Subclass it, define `make_store`, and pytest tests your store."""

    ttl: float = 0.2
    """Seconds for which tests keep what should go."""
    patience: float = 20.0
    """Seconds after which something that should have happened counts as never happening."""

    def make_store(self) -> Store:
        """Return a store that holds nothing; called once for each test."""
        raise NotImplementedError(f"{type(self).__name__} must define make_store")

    def reopen(self, store: Store) -> Store | None:
        """Return a second store on the same values; None if there is no such thing."""
        return None

    def other_namespace(self, store: Store) -> Store | None:
        """Return a store at the same place in another namespace; None without any."""
        return None

    def advance(self, store: Store, seconds: float) -> None:
        """Let so much of the store's time pass."""
        until = store.now() + seconds
        while (left := until - store.now()) > 0:
            time.sleep(left + 0.002)

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """The store under test."""
        made = self.make_store()
        yield made
        made.close()

    # --- one operation -------------------------------------------------------------------

    def test_a_value_comes_back_as_it_was(self, store: Store) -> None:
        """Any bytes come back the same, and a later value replaces an earlier one."""
        every = bytes(range(256))

        assert [None] == list(store.apply([Get("k")]))
        assert [True, every] == list(store.apply([Put("k", every), Get("k")]))
        assert [True] == list(store.apply([Put("k", b"")]))
        assert [b""] == list(store.apply([Get("k")]))

    def test_put_only_if_absent(self, store: Store) -> None:
        """The first value stays where the second is only wanted if there is none."""
        assert [True] == list(store.apply([Put("k", b"1", only_if_absent=True)]))
        assert [False, b"1"] == list(store.apply([Put("k", b"2", only_if_absent=True), Get("k")]))

    def test_swap_needs_what_it_expects(self, store: Store) -> None:
        """A swap writes if it finds the old value, or nothing where nothing is expected."""
        assert [False] == list(store.apply([Swap("k", b"1", b"2")]))
        assert [True] == list(store.apply([Swap("k", None, b"1")]))
        assert [False] == list(store.apply([Swap("k", None, b"2")]))
        assert [True, b"2"] == list(store.apply([Swap("k", b"1", b"2"), Get("k")]))
        assert [True, None] == list(store.apply([Swap("k", b"2", None), Get("k")]))

    def test_an_empty_value_is_not_nothing(self, store: Store) -> None:
        """A swap tells an empty value from none."""
        store.apply([Put("k", b"")])

        assert [False, True] == list(store.apply([Swap("k", None, b"1"), Swap("k", b"", b"2")]))

    def test_delete_says_whether_there_was_something(self, store: Store) -> None:
        """Values and sets go, and what is not there was not there."""
        store.apply([Put("{g}v", b"1"), Add("{g}s", "a")])

        deletes: list[Operation] = [Delete("{g}v"), Delete("{g}s"), Delete("{g}s")]
        assert [True, True, False] == list(store.apply(deletes))
        assert [None, 1] == list(store.apply([Get("{g}v"), Add("{g}s", "b")]))

    def test_a_set_counts_each_member_once(self, store: Store) -> None:
        """Adding returns the size, which a member that is there does not change."""
        adds = [Add("s", "a"), Add("s", "b"), Add("s", "a")]

        assert [1, 2, 2] == list(store.apply(adds))
        assert [3] == list(store.apply([Add("s", "\N{DUCK}")]))

    def test_a_counter_is_a_decimal_value(self, store: Store) -> None:
        """A counter begins at 0, goes both ways, and can be read and written as a value."""
        assert [1, -4] == list(store.apply([Increment("n"), Increment("n", -5)]))
        assert [b"-4"] == list(store.apply([Get("n")]))
        assert [True, 42] == list(store.apply([Put("n", b"40"), Increment("n", 2)]))

    # --- one step ------------------------------------------------------------------------

    def test_operations_see_those_before_them(self, store: Store) -> None:
        """Within one step each operation finds what those before it left."""
        steps: list[Operation] = [
            Put("{g}", b"1"),
            Increment("{g}"),
            Delete("{g}"),
            Add("{g}", "a"),
            Delete("{g}"),
            Add("{g}", "a"),
            Delete("{g}"),
            Swap("{g}", None, b"x"),
            Get("{g}"),
        ]
        assert [True, 2, True, 1, True, 1, True, True, b"x"] == list(store.apply(steps))

    def test_keys_of_several_groups_are_refused(self, store: Store) -> None:
        """One step is of one group: the part in braces, or the whole key."""
        with pytest.raises(StoreError, match="one group"):
            store.apply([Put("a", b"1"), Put("b", b"2")])
        with pytest.raises(StoreError, match="one group"):
            store.apply([Put("x{1}", b"1"), Put("x{2}", b"2")])
        with pytest.raises(StoreError, match="one group"):
            store.apply([])

        assert [None] == list(store.apply([Get("a")]))
        assert [True, True] == list(store.apply([Put("x{1}", b""), Put("1{1}y", b"")]))

    def test_another_kind_is_refused_and_nothing_happens(self, store: Store) -> None:
        """What is for values fails on a set and the other way round, and undoes its step."""
        store.apply([Put("{g}v", b"text"), Add("{g}s", "a")])
        wrong: list[Operation] = [
            Add("{g}v", "a"),
            Increment("{g}v"),
            Get("{g}s"),
            Put("{g}s", b""),
            Swap("{g}s", None, b""),
            Increment("{g}s"),
        ]
        for operation in wrong:
            with pytest.raises(StoreError):
                store.apply([Put("{g}new", b"1"), Add("{g}s", "b"), Delete("{g}s2"), operation])
            if not isinstance(operation, Add):
                with pytest.raises(StoreError):
                    store.apply([operation])

        found = store.apply([Get("{g}new"), Get("{g}v"), Add("{g}s", "a")])
        assert [None, b"text", 1] == list(found)

    def test_sizes(self, store: Store) -> None:
        """The largest key, value and count fit; what is larger is refused, whole."""
        key = "k" * MAX_KEY
        store.apply([Put(key, bytes(MAX_VALUE))])
        assert [bytes(MAX_VALUE)] == list(store.apply([Get(key)]))
        assert [MAX_COUNT] == list(store.apply([Increment("n", MAX_COUNT)]))

        for operation in (
            Put(key + "k", b""),
            Put("", b""),
            Put("a\x00b", b""),
            Put(key, bytes(MAX_VALUE + 1)),
            Swap(key, None, bytes(MAX_VALUE + 1)),
            Add("s", "m" * (MAX_KEY + 1)),
            Increment("n"),
            Increment("n", MAX_COUNT + 1),
            Put("k", b"", ttl=0),
            Put("k", b"", ttl=float("nan")),
        ):
            with pytest.raises(StoreError):
                store.apply([operation])
        assert [MAX_COUNT - 1] == list(store.apply([Increment("n", -1)]))

    # --- time ----------------------------------------------------------------------------

    def test_what_is_over_is_absent_everywhere(self, store: Store) -> None:
        """After its time no operation and no scan finds a value, a counter or a set."""
        ttl = self.ttl
        store.apply([Put("{g}1", b"x", ttl=ttl), Put("{g}2", b"x", ttl=ttl)])
        store.apply([Increment("{g}n", 5, ttl=ttl), Add("{g}s", "a", ttl=ttl)])
        store.apply([Put("{g}3", b"x", ttl=ttl), Swap("{g}4", None, b"x", ttl=ttl)])
        store.apply([Put("{g}5", b"stays", ttl=LONG)])
        self.advance(store, ttl * 1.5)

        assert [("{g}5", b"stays")] == list(store.scan("{g}"))
        found = store.apply(
            [
                Get("{g}1"),
                Put("{g}2", b"new", only_if_absent=True),
                Swap("{g}3", None, b"new"),
                Delete("{g}4"),
                Increment("{g}n"),
                Add("{g}s", "b"),
            ]
        )
        assert [None, True, True, False, 1, 1] == list(found)

    def test_a_new_value_has_its_own_time(self, store: Store) -> None:
        """Writing again without a time keeps for good; adding keeps the time there was."""
        ttl = self.ttl
        store.apply([Put("{g}1", b"x", ttl=ttl), Put("{g}1", b"y")])
        store.apply([Put("{g}2", b"x", ttl=ttl), Swap("{g}2", b"x", b"y")])
        store.apply([Increment("{g}n", ttl=ttl), Increment("{g}n")])
        store.apply([Add("{g}s", "a", ttl=ttl), Add("{g}s", "b")])
        store.apply([Add("{g}t", "a", ttl=ttl), Add("{g}t", "b", ttl=LONG)])
        self.advance(store, ttl * 1.5)

        found = store.apply(
            [Get("{g}1"), Get("{g}2"), Get("{g}n"), Add("{g}s", "c"), Add("{g}t", "c")]
        )
        assert [b"y", b"y", None, 1, 3] == list(found)

    # --- scanning ------------------------------------------------------------------------

    def test_scan_pages_through_a_prefix_in_order(self, store: Store) -> None:
        """Pages join to all values of the prefix, by key; sets and others are not there."""
        names = [f"p:{n:02}" for n in range(25)] + ["p:\N{DUCK}"]
        for name in reversed(names):
            store.apply([Put(name, name.encode())])
        for other in ("o", "p", "p;", "q:1"):
            store.apply([Put(other, b"")])
        store.apply([Add("p:set", "a")])

        found: list[tuple[str, bytes]] = []
        while page := store.scan("p:", limit=7, after=found[-1][0] if found else ""):
            found += page
            if len(page) < 7:
                break
        assert [(name, name.encode()) for name in names] == found
        assert [] == list(store.scan("p:%"))
        with pytest.raises(StoreError, match="prefix"):
            store.scan("")

    def test_scan_while_others_write(self, store: Store) -> None:
        """Values that nobody touches are seen once each while others come and go."""
        steady = [f"p:{n:02}" for n in range(0, 40, 2)]
        for name in steady:
            store.apply([Put(name, b"steady")])
        done = threading.Event()

        def churn() -> None:
            while not done.is_set():
                for n in range(1, 40, 2):
                    store.apply([Put(f"p:{n:02}", b"brief")])
                    store.apply([Delete(f"p:{n:02}")])

        writer = threading.Thread(target=churn)
        writer.start()
        try:
            for _ in range(5):
                seen: list[str] = []
                while page := store.scan("p:", limit=3, after=seen[-1] if seen else ""):
                    seen += [key for key, _ in page]
                assert steady == [name for name in seen if int(name[2:]) % 2 == 0]
                assert len(seen) == len(set(seen))
        finally:
            done.set()
            writer.join(self.patience)

    # --- crowds --------------------------------------------------------------------------

    def test_of_concurrent_swaps_one_wins(self, store: Store) -> None:
        """Threads that swap what they read lose no step: each value is the next of another."""
        other = self.reopen(store) or store

        def climb(mine: Store) -> int:
            won = 0
            while won < 20:
                [old] = mine.apply([Get("k")])
                new = str(int(old or b"0") + 1).encode()
                won += mine.apply([Swap("k", old, new)])[0]
            return won

        self.together([partial(climb, mine) for mine in (store, other, store, other)])
        if other is not store:
            other.close()

        assert [b"80"] == list(store.apply([Get("k")]))

    def test_concurrent_increments_and_adds_all_count(self, store: Store) -> None:
        """No increment and no member is lost, and both of one step are seen together."""

        def work(name: int) -> None:
            for n in range(25):
                count, size = store.apply([Increment("{g}n"), Add("{g}s", f"{name}-{n}")])
                assert count == size, "another step came in between"

        self.together([partial(work, name) for name in range(4)])

        assert [100, 101] == list(store.apply([Increment("{g}n", 0), Add("{g}s", "last")]))

    def together(self, calls: Sequence[Callable[[], object]]) -> None:
        """Run *calls* at once, each on its thread, and raise what one of them raised."""
        problems: list[BaseException] = []

        def run(call: Callable[[], object]) -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised below, in the test
                problems.append(error)

        threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.patience)
        assert not any(thread.is_alive() for thread in threads), "still waiting"
        if problems:
            raise problems[0]

    # --- places --------------------------------------------------------------------------

    def test_a_second_object_sees_the_same(self, store: Store) -> None:
        """What one object wrote another reads, also when the first is closed."""
        other = self.reopen(store)
        if other is None:
            pytest.skip(f"{type(store).__name__} has no second object on one store")
        store.apply([Put("k", b"1")])
        store.close()

        assert [b"1"] == list(other.apply([Get("k")]))
        other.close()

    def test_namespaces_are_apart(self, store: Store) -> None:
        """Another namespace neither sees nor changes what is here."""
        other = self.other_namespace(store)
        if other is None:
            pytest.skip(f"{type(store).__name__} has no namespaces")
        store.apply([Put("k", b"1")])
        other.apply([Put("k", b"2")])

        assert [b"1"] == list(store.apply([Get("k")]))
        assert [("k", b"2")] == list(other.scan("k"))
        other.close()
