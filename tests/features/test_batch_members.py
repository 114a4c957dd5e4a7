"""What a batch remembers of its members: bytes of which the greater one wins."""

from __future__ import annotations

import random
from itertools import permutations

from goose.features.batches.members import (
    CANCELLED,
    DEAD,
    DELETED,
    DONE,
    RENEWED,
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
)


def test_only_a_replay_goes_back() -> None:
    """Words about a member count if they are more than what is known; success is for good."""
    ways = [WAITING, RETRYING, DELETED, CANCELLED, DEAD, SKIPPED, DONE]
    assert sorted(ways) == ways
    for known in ways:
        value = joined(None, {0: known})
        after = [kinds(joined(value, {0: said}))[0] for said in ways]
        again = kinds(joined(value, {0: RENEWED}))[0]

        assert [max(known, said) for said in ways] == after
        assert again == (known if known in (SKIPPED, DONE) else WAITING)


def test_reports_may_come_in_any_order_and_any_number() -> None:
    """However reports of two members are shuffled and repeated, the shard is the same."""
    reports = [
        {0: WAITING},
        {0: DEAD, 700: WAITING},
        {0: RETRYING},
        {700: DONE},
    ]
    values = set()
    for order in permutations(reports):
        value = None
        for report in [*order, *order[:2]]:
            value = joined(value, report)
        values.add(value)

    assert 1 == len(values)
    assert (0, 0, 0, 0, 0, 1, 0, 1) == count(values)


def test_what_is_unknown_is_no_member() -> None:
    """Numbers of which nothing was said are not counted, and nothing waits for them."""
    assert is_settled(None)
    assert is_settled(joined(None, {9: DONE}))
    assert not is_settled(joined(None, {9: RETRYING}))
    assert not is_settled(joined(None, {0: DONE, 9: WAITING}))
    assert 1 == sum(count([joined(None, {9: DEAD}), None]))


def test_counts_are_those_of_a_plain_list() -> None:
    """Counting whole shards gives what counting members one by one gives."""
    chance = random.Random(7)
    plain: dict[int, int] = {}
    shards: dict[int, bytes | None] = {}
    for _ in range(5000):
        number, kind = chance.randrange(4 * SHARD), chance.randrange(WAITING, DONE + 1)
        plain[number] = max(plain.get(number, 0), kind)
        shards[number // SHARD] = joined(shards.get(number // SHARD), {number % SHARD: kind})

    assert tuple(list(plain.values()).count(kind) for kind in range(8)) == count(shards.values())


def test_a_shard_says_how_long_it_is_kept() -> None:
    """The seconds survive reports, are rounded up, and are none at first."""
    value = joined(None, {1: WAITING})
    assert kept_for(None) is None
    assert kept_for(value) is None
    kept = joined(keep_for(value, 0.2), {5: DONE})

    assert 1.0 == kept_for(kept)
    assert 3600.0 == kept_for(keep_for(kept, 3600))
    assert kept_for(keep_for(value, 1e12)) == 0xFFFFFFFF
    assert kinds(kept) == kinds(joined(value, {5: DONE}))
