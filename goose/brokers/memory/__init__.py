"""The broker inside your process: the whole contract, in memory, made readable.

For tests, for small programs whose jobs may end with them, and as the reference other
brokers are compared with. It is not durable and no other process sees it.

* `store` holds the jobs and has one method for each move a job can make,
* `broker` is the contract on top of it: `MemoryBroker`,
* `inspector` is the part of it that operators use,
* `options` reads its URL.
"""

from goose.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
