"""The example of several brokers spreads its load, and lives with changes and failures."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.redis import RedisBroker
from goose.testing import configured, drain
from tests.servers.redis import RedisServer

CUSTOMERS = [f"customer {number}" for number in range(100)]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers that know nothing of each other."""
    with RedisServer(tmp_path / "one") as one, RedisServer(tmp_path / "two") as two:
        yield one, two


@pytest.fixture
def sharding(
    root: Path, servers: tuple[RedisServer, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The example, with the first server as its only shard."""
    monkeypatch.syspath_prepend(root / "examples")
    monkeypatch.setenv("SHARDS", servers[0].url)
    with configured():  # closes what was connected
        yield importlib.reload(importlib.import_module("sharding"))


def waiting(server: RedisServer) -> int:
    """Return how many jobs are ready there."""
    broker = RedisBroker(server.url)
    count = broker.count(State.READY)
    broker.close()
    return count


def greet_all(sharding: ModuleType) -> list[str]:
    """Enqueue a job for each customer, and return those for whom that failed."""
    failed = []
    for customer in CUSTOMERS:
        try:
            sharding.client_for(customer).enqueue(sharding.greet, customer)
        except goose.EnqueueError:
            failed.append(customer)
    return failed


def test_the_load_is_spread_while_the_program_runs(
    sharding: ModuleType,
    servers: tuple[RedisServer, RedisServer],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A second server takes its part from the next call on; every job runs where it is, once."""
    one, two = servers

    assert [] == greet_all(sharding)
    assert (100, 0) == (waiting(one), waiting(two))

    sharding.shards.append(two.url)

    assert [] == greet_all(sharding)
    moved = waiting(two)
    assert 20 < moved < 80
    assert 200 - moved == waiting(one)
    assert {"done": 200 - moved} == drain(one.url).endings
    assert {"done": moved} == drain(two.url).endings
    assert sorted(2 * CUSTOMERS) == sorted(
        line.removeprefix("Hello ") for line in capfd.readouterr().out.splitlines()
    )


def test_few_customers_move(sharding: ModuleType) -> None:
    """Each customer stays on one server; of three, one more takes about a quarter from all."""
    sharding.shards[:] = [f"redis://{name}.example/0" for name in ("one", "two", "three")]
    before = {customer: sharding.shard_of(customer) for customer in CUSTOMERS}

    assert before == {customer: sharding.shard_of(customer) for customer in reversed(CUSTOMERS)}
    assert set(sharding.shards) == set(before.values())

    sharding.shards.append("redis://four.example/0")
    moved = {c: sharding.shard_of(c) for c in CUSTOMERS if sharding.shard_of(c) != before[c]}

    assert {"redis://four.example/0"} == set(moved.values())
    assert 10 < len(moved) < 40


def test_a_server_that_is_down_stops_its_own_customers_only(
    sharding: ModuleType, servers: tuple[RedisServer, RedisServer]
) -> None:
    """Their enqueues raise, those of all others are stored."""
    one, two = servers
    sharding.shards.append(two.url)
    of_one = [customer for customer in CUSTOMERS if sharding.shard_of(customer) == one.url]
    one.kill()

    assert 0 < len(of_one) < len(CUSTOMERS)
    assert of_one == greet_all(sharding)
    assert len(CUSTOMERS) - len(of_one) == waiting(two)


def test_without_shards_the_example_says_so(sharding: ModuleType) -> None:
    """The variable that is not set is named."""
    sharding.shards.clear()

    with pytest.raises(LookupError, match="SHARDS"):
        sharding.client_for("Ada")
