"""Jobs on a Redis or Valkey server, behind Sentinel, or on a Cluster.

* `broker` is the contract: `RedisBroker`, made of `sessions`, `upkeep` and `inspector`,
* `lua/` has one script for each verb, and `scripts` loads them,
* `links` and `cluster` carry calls to servers, `waiting` lets an idle worker sleep,
* `keys` names every key, `records` is the stored form of jobs,
* `faults` says what each error means, `checks` looks at the server once,
* `options` reads URLs.
"""

from goose.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
