"""Jobs on RabbitMQ: confirmed, delayed without plugins, and never deaf.

* `broker` is the contract: `RabbitMQBroker`, and `parts` what one process of it is made of,
* `wire` is a `connection` that comes back, with a thread of its own; on it are `publishing`,
  which stores messages and waits for `confirms`, `desk`, which asks and declares, and `intake`,
  which takes jobs, with one `lane` for each queue,
* `names` and `topology` say what is on the server, `ladder` how delays work there, `parcels`
  what a job looks like as a message,
* `words` is what survivors tell of dead workers' jobs, `keeper` stores parked jobs afresh,
* `inspector` shows jobs to people, through a `browser`,
* `faults` says what each error means, `options` reads URLs.
"""

from goose.brokers.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
