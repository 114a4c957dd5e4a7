"""Fixtures for pytest, there as soon as Goose is installed. They import Goose when they are used.

==================  ================================================================
fixture             what a test gets
==================  ================================================================
goose_broker        an empty memory broker, configured as default for this test
goose_redis_broker  an empty Redis broker inside of this process, likewise; needs fakeredis
goose_client        a `goose.Client` on `goose_broker`
assert_enqueued     fails unless a call was enqueued on it, and returns its job
refute_enqueued     fails if one was
goose_drain         runs what is ready on it (`goose.testing.drain`)
goose_inline        every enqueue runs its job at once (`goose.testing.inline`)
==================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from goose.brokers.memory import MemoryBroker
    from goose.brokers.redis import RedisBroker
    from goose.clients import Client
    from goose.jobs import Job
    from goose.testing.running import Drained, Inlined


@pytest.fixture
def goose_broker() -> Iterator[MemoryBroker]:
    """An empty memory broker that this test's enqueues go to."""
    from goose.brokers.memory import MemoryBroker
    from goose.testing.configuring import configured

    broker = MemoryBroker()
    with configured(broker=broker):
        yield broker


@pytest.fixture
def goose_redis_broker() -> Iterator[RedisBroker]:
    """An empty Redis broker that this test's enqueues go to, on a fakeredis of its own.

    The broker's own Lua scripts run, inside of this process and without a server.

    Raises:
        MissingDriver: fakeredis, or the Lua it needs, is not installed.
    """
    from goose.errors import MissingDriver
    from goose.testing.configuring import configured

    try:
        import_module("lupa")  # without it fakeredis has no scripts, and says so late
        from fakeredis import FakeRedis, FakeServer
    except ModuleNotFoundError as error:
        raise MissingDriver(
            f"the fixture goose_redis_broker needs the Python package {error.name!r}, which is "
            "not installed: pip install 'goose-jobs[redis]' 'fakeredis[lua]'"
        ) from error
    from goose.brokers.redis import RedisBroker

    broker = RedisBroker(FakeRedis(server=FakeServer()))
    with configured(broker=broker):
        yield broker
    broker.close()


@pytest.fixture
def goose_client(goose_broker: MemoryBroker) -> Client:
    """A client on `goose_broker`."""
    from goose.clients import Client

    return Client(goose_broker)


@pytest.fixture
def assert_enqueued(goose_broker: MemoryBroker) -> Callable[..., Job[Any]]:
    """`goose.testing.assert_enqueued`, on `goose_broker`."""
    from goose.testing.asserting import Asserter

    return Asserter(goose_broker).assert_enqueued


@pytest.fixture
def refute_enqueued(goose_broker: MemoryBroker) -> Callable[..., None]:
    """`goose.testing.refute_enqueued`, on `goose_broker`."""
    from goose.testing.asserting import Asserter

    return Asserter(goose_broker).refute_enqueued


@pytest.fixture
def goose_drain(goose_broker: MemoryBroker) -> Callable[..., Drained]:
    """`goose.testing.drain`, on `goose_broker`."""
    from functools import partial

    from goose.testing.running import drain

    return partial(drain, goose_broker)


@pytest.fixture
def goose_inline() -> Iterator[Inlined]:
    """`goose.testing.inline`, for the whole test."""
    from goose.testing.running import inline

    with inline() as seen:
        yield seen
