"""Jobs in a PostgreSQL database, in a schema of their own.

* `broker` is the contract: `PostgresBroker`, made of `sessions`, `upkeep` and `inspector`,
* `sql/` has one statement for each verb, `statements` loads them, `schema` makes the tables,
* `connections` keeps connections and ends every call in time, `arrays` packs lists for them,
* `waiting` lets an idle worker sleep, `notices` sends and hears what ends the sleep,
* `within` stores jobs in a transaction of the caller's own, `completing` has jobs run in one,
* `archive` keeps jobs that are done,
* `faults` says what each error means, `checks` looks at the server once,
* `options` reads URLs.
"""

from goose.brokers.postgres.broker import PostgresBroker

__all__ = ["PostgresBroker"]
