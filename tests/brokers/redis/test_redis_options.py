"""URLs and options of the Redis broker."""

from __future__ import annotations

import importlib.metadata
from datetime import timedelta
from typing import Any

import pytest
import redis

from goose import brokers
from goose.brokers.redis import RedisBroker
from goose.brokers.redis.clustered import RedisClusterBroker
from goose.brokers.redis.connections import settings
from goose.brokers.redis.options import Options, read
from goose.errors import ConfigError
from tests.servers.redis import RedisServer


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://", {"hosts": (("localhost", 6379),), "db": 0, "tls": False}),
        ("redis://example.org:7000/3", {"hosts": (("example.org", 7000),), "db": 3}),
        ("redis://[::1]:7000", {"hosts": (("::1", 7000),)}),
        ("redis://ada:p%40ss%2F@h", {"username": "ada", "password": "p@ss/"}),
        ("redis://:secret@h", {"username": None, "password": "secret"}),
        ("rediss://h", {"tls": True, "tls_verify": True}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("redis+unix:///a%20b.sock", {"path": "/a b.sock"}),
        (
            "redis+sentinel://u:p@one,two:26380/main/1",
            {
                "kind": "sentinel",
                "hosts": (("one", 26379), ("two", 26380)),
                "service": "main",
                "db": 1,
                "username": "u",
            },
        ),
        ("redis+cluster://one:1,two", {"kind": "cluster", "hosts": (("one", 1), ("two", 6379))}),
        (
            "redis://h?namespace=shop&pool=7&timeout=800ms&connect_timeout=1&wait=2",
            {"namespace": "shop", "pool": 7, "timeout": 0.8, "connect_timeout": 1.0, "wait": 2},
        ),
        ("redis://h?dead_max_age=7d&dead_max_count=5", {"dead_max_age": 604800.0}),
        ("redis://h?strict=yes", {"strict": True}),
    ],
)
def test_a_url_says_where_and_how(url: str, told: dict[str, Any]) -> None:
    """Every part of a URL is read."""
    options = read(url, {})

    assert told == {name: getattr(options, name) for name in told}


def test_a_keyword_wins() -> None:
    """Options given as keywords stand before those of the query."""
    options = read("redis://h?pool=7&wait=1", {"pool": 9, "dead_max_age": timedelta(days=1)})

    assert (9, 1, 86400.0) == (options.pool, options.wait, options.dead_max_age)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/zero", "a database by number, and 'zero' is none.*redis://host:6379/0"),
        ("redis://h/0/1", "after the database"),
        ("redis://h:port", "Redis URL .port 'port' is no number from 0 to 65535"),
        ("redis://one,two", "redis\\+sentinel://"),
        ("redis+sentinel://one", "names no service"),
        ("redis+cluster://one/1", "no numbered databases"),
        ("unix://", "names no socket"),
        ("http://h", "scheme is 'http'"),
        ("redis://h?namespce=x", "did you mean 'namespace'"),
        ("redis://h?namespace=a:b", "1 to 40"),
        ("redis://h?timeout=0", "wait for ever"),
        ("redis://h?timeout=soon", "use seconds"),
        ("redis://h?pool=0", "1 or more"),
        ("redis://h?pool=ten", "option pool = 'ten' of 'redis://h': give a whole number"),
        ("redis://h?strict=maybe", "true or false"),
    ],
)
def test_nonsense_is_refused(url: str, said: str) -> None:
    """What cannot be meant is an error that says what can."""
    with pytest.raises(ConfigError, match=said):
        read(url, {})


def test_errors_do_not_tell_secrets() -> None:
    """Neither a password nor a query is in an error about a URL."""
    for url in ("redis://u:hush@h/zero", "redis://u:hush@h?sentinel_password=hush&nope=hush"):
        with pytest.raises(ConfigError) as caught:
            read(url, {})
        assert "hush" not in str(caught.value)


def test_timeouts_are_always_finite() -> None:
    """Whatever is said, redis-py gets a timeout for connecting and one for answers."""
    for options in (Options(), read("redis://h?timeout=2", {})):
        made_with = settings(options)

        assert (options.timeout, options.connect_timeout) == (
            made_with["socket_timeout"],
            made_with["socket_connect_timeout"],
        )
        assert options.timeout > 0


def test_certificates_are_verified() -> None:
    """With rediss:// certificate and host name are checked, unless told otherwise by name."""
    strict, lax = settings(read("rediss://h", {})), settings(read("rediss://h?tls_verify=no", {}))

    assert ("required", True) == (strict["ssl_cert_reqs"], strict["ssl_check_hostname"])
    assert ("none", False) == (lax["ssl_cert_reqs"], lax["ssl_check_hostname"])


def test_every_scheme_is_registered() -> None:
    """`goose.brokers.connect` finds the broker by each of its schemes."""
    names = {entry.name for entry in importlib.metadata.entry_points(group=brokers.GROUP)}
    wanted = {"redis", "rediss", "unix", "redis+unix", "redis+sentinel", "redis+cluster"}

    assert wanted <= names
    assert isinstance(brokers.connect("redis://localhost:1"), RedisBroker)
    assert isinstance(brokers.connect("redis+cluster://localhost:1"), RedisClusterBroker)


def test_a_client_may_be_given(redis_server: RedisServer) -> None:
    """A broker may use the connections of a redis-py client, whatever its settings are."""
    client = redis_server.new_client(decode_responses=True, protocol=3)
    broker = RedisBroker(client, namespace="given")
    assert [] == list(broker.queues())
    broker.close()

    assert client.ping()


def test_a_cluster_needs_a_url() -> None:
    """A client cannot be given for a cluster; the error says what to write."""
    with pytest.raises(ConfigError, match=r"redis\+cluster://"):
        RedisClusterBroker(redis.Redis())


def test_it_works_over_a_unix_socket(redis_server: RedisServer) -> None:
    """A unix socket is a way to the same jobs."""
    broker = RedisBroker(f"unix://{redis_server.socket_path}")

    assert [] == list(broker.queues())
