"""`RedisStore`: values on a Redis or Valkey server, beside the jobs or on another one.

Every `apply` is one call of a script, which the server runs in one step; the clock is the
server's. On a single server (also behind Sentinel) the store is one *shard*, on a Cluster
it is 16, each in a slot of its own, and a group is always in the same one::

    goose:{ns}:kept          hash  key -> value
    goose:{ns}:kept:until    zset  key -> instant     when it is over, in microseconds
    goose:{ns}:kept:names    zset  key                for scans, in the order of their bytes
    goose:{ns}:kept:set:KEY  set   members

On a Cluster they begin with ``goose:{ns:kept:N}``. What is over is swept away by the calls that
come after, a little in each; sets expire by themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from goose.brokers.redis import scripts
from goose.brokers.redis.access import Access
from goose.brokers.redis.cluster import ClusterLink
from goose.brokers.redis.links import Call, Link
from goose.errors import ConfigError, StoreError
from goose.stores.base import (
    MAX_COUNT,
    Add,
    Delete,
    Get,
    Increment,
    Operation,
    Put,
    Swap,
    Verbs,
    check,
    check_prefix,
    wrong_kind,
)

SHARDS = 16
"""Slots among which a Cluster's store is spread."""


class RedisStore(Access, Verbs):
    """A store on a server, as durable as that is told to be. Thread-safe.

    Nothing is connected before the first use.

    Args:
        place: As for `goose.brokers.redis.RedisBroker`, with the same options. ``wait`` is for
            jobs only.
        given: Options, as in the query of the URL, and before it.

    Raises:
        ConfigError: The URL or an option is unknown or nonsense.
    """

    def __init__(self, place: Any = None, **given: Any) -> None:
        super().__init__(place, **given)
        clustered, space = self._keys.clustered, self.options.namespace
        self._shards = (
            [f"goose:{{{space}:kept:{number}}}" for number in range(SHARDS)]
            if clustered
            else [self._keys.home.prefix]
        )

    def _make_link(self, client: Any) -> Link:
        if self.options.kind != "cluster":
            return Link(self.options, client)
        if client is not None:
            raise ConfigError("for a cluster give a URL: redis+cluster://host1,host2")
        return ClusterLink(self.options)

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`; one call of a script."""
        group = check(operations)
        shard = self._shards[zlib.crc32(group.encode()) % len(self._shards)]
        keys = [*_keys(shard), *(f"{shard}:kept:set:{one.key}" for one in operations)]
        args = [part for operation in operations for part in _wire(operation)]
        # What only reads may be asked again when the answer got lost.
        harmless = all(isinstance(operation, Get) for operation in operations)
        done, *answers = self._ready().run(Call(scripts.KEEP, keys, args), again=harmless)
        if not done:
            key, there = (part.decode() for part in answers)
            if there == "too much":
                raise StoreError(f"{key}: a counter goes no further than {MAX_COUNT:,} from 0")
            raise wrong_kind(key, there)
        return [
            _result(operation, answer)
            for operation, answer in zip(operations, answers, strict=True)
        ]

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """See `Store.scan`; on a Cluster each shard is asked, one after the other."""
        check_prefix(prefix, limit)
        found: list[tuple[str, bytes]] = []
        for shard in self._shards:
            found += self._scan(shard, prefix, limit, after)
        return sorted(found)[:limit]

    def _scan(self, shard: str, prefix: str, limit: int, after: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        first = f"({after}" if after >= prefix else f"[{prefix}"
        # No byte of UTF-8 is 255.
        last = b"[" + prefix.encode() + b"\xff"
        while len(found) < limit:
            call = Call(scripts.SCAN, _keys(shard), (first, last, limit))
            end, *flat = self._ready().run(call, again=True)
            found += [
                (key.decode(), value) for key, value in zip(flat[::2], flat[1::2], strict=True)
            ]
            if not end:
                break
            first = f"({end.decode()}"
        return found

    def now(self) -> float:
        """See `Store.now`: the server's, of a Cluster one of them."""
        call = Call(scripts.CLOCK, _keys(self._shards[0])[:1])
        return int(self._ready().run(call, again=True)) / 1e6


def _keys(shard: str) -> list[str]:
    return [f"{shard}:kept", f"{shard}:kept:until", f"{shard}:kept:names"]


def _wire(operation: Operation) -> tuple[Any, ...]:
    """Return *operation* as the script takes it."""
    key = operation.key
    ttl = getattr(operation, "ttl", None)
    micros: Any = b"" if ttl is None else round(ttl * 1e6)
    match operation:
        case Get():
            return b"get", key, b"", b"", b""
        case Put(value=value, only_if_absent=only_if_absent):
            return b"put", key, value, b"1" if only_if_absent else b"", micros
        case Swap(old=old, new=new):
            return b"swap", key, _optional(old), _optional(new), micros
        case Delete():
            return b"delete", key, b"", b"", b""
        case Add(member=member):
            return b"add", key, member, b"", micros
        case Increment(amount=amount):
            return b"increment", key, amount, b"", micros


def _optional(value: bytes | None) -> bytes:
    return b"-" if value is None else b"+" + value


def _result(operation: Operation, answer: Any) -> Any:
    match operation:
        case Get():
            return answer
        case Add() | Increment():
            return int(answer)
        case _:
            return bool(answer)
