"""What a batch remembers of its members: bytes of which the greater one wins."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from goose.features.batches.members import (
    CANCELLED,
    DEAD,
    DELETED,
    DONE,
    GENERATIONS,
    RETRYING,
    SHARD,
    SKIPPED,
    WAITING,
    count,
    is_settled,
    joined,
    keep_for,
    kept_for,
    kinds,
    state,
)


def test_a_members_ways_are_ordered() -> None:
    """Later words about a member are greater, a replay is greater than a death, success than all."""
    ordered = [
        state(kind, generation)
        for generation in range(GENERATIONS)
        for kind in (WAITING, RETRYING, DELETED, CANCELLED, DEAD)
    ] + [state(SKIPPED, 0), state(DONE, 3)]

    assert sorted(set(ordered)) == ordered
    assert 0 not in ordered


@pytest.mark.parametrize("generation", [0, 1, 5, GENERATIONS - 1, GENERATIONS, 1000])
@pytest.mark.parametrize("kind", [WAITING, RETRYING, DELETED, CANCELLED, DEAD, SKIPPED, DONE])
def test_a_byte_says_its_kind(kind: int, generation: int) -> None:
    """From the byte of a member its kind can be read, however often it was replayed."""
    value = joined(None, {3: state(kind, generation)})

    assert bytes([0, 0, 0, kind]) == kinds(value)


def test_reports_may_come_in_any_order_and_any_number() -> None:
    """However reports of two members are shuffled and repeated, the shard is the same."""
    reports = [
        {0: state(WAITING, 0)},
        {0: state(DEAD, 0), 700: state(WAITING, 0)},
        {0: state(WAITING, 1)},
        {700: state(DONE, 0)},
    ]
    values = set()
    for order in permutations(reports):
        value = None
        for report in [*order, *order[:2]]:
            value = joined(value, report)
        values.add(value)

    assert 1 == len(values)
    assert (0, 1, 0, 0, 0, 0, 0, 1) == count(values)


def test_what_is_unknown_is_no_member() -> None:
    """Numbers of which nothing was said are not counted, and nothing waits for them."""
    assert is_settled(None)
    assert is_settled(joined(None, {9: state(DONE, 0)}))
    assert not is_settled(joined(None, {9: state(RETRYING, 2)}))
    assert not is_settled(joined(None, {0: state(DONE, 0), 9: state(WAITING, 0)}))
    assert 1 == sum(count([joined(None, {9: state(DEAD, 0)}), None]))


def test_counts_are_those_of_a_plain_list() -> None:
    """Counting whole shards gives what counting members one by one gives."""
    chance = random.Random(7)
    plain: dict[int, int] = {}
    shards: dict[int, bytes | None] = {}
    for _ in range(5000):
        number, kind = chance.randrange(4 * SHARD), chance.randrange(WAITING, DONE + 1)
        plain[number] = max(plain.get(number, 0), kind)
        shards[number // SHARD] = joined(
            shards.get(number // SHARD), {number % SHARD: state(kind, 0)}
        )

    assert tuple(list(plain.values()).count(kind) for kind in range(8)) == count(shards.values())


def test_a_shard_says_how_long_it_is_kept() -> None:
    """The seconds survive reports, are rounded up, and are none at first."""
    value = joined(None, {1: state(WAITING, 0)})
    assert kept_for(None) is None
    assert kept_for(value) is None
    kept = joined(keep_for(value, 0.2), {5: state(DONE, 0)})

    assert 1.0 == kept_for(kept)
    assert 3600.0 == kept_for(keep_for(kept, 3600))
    assert kept_for(keep_for(value, 1e12)) == 0xFFFFFFFF
    assert kinds(kept) == kinds(joined(value, {5: state(DONE, 0)}))
