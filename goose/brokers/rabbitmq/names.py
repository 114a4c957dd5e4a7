"""What everything is called on the server, and how it is declared.

========================================  ===================================================
``goose/NS/q/QUEUE``                      ready jobs of a queue
``goose/NS/dead/QUEUE``                   its dead jobs
``goose/NS/parked``                       jobs that somebody has to store afresh
``goose/NS/names``                        one message for each queue that was ever used
``…/look``                                the sign of who looks at the dead jobs, or at the names
``goose/NS/delay/LEVEL/DIGIT``            a step of the ladder, see `goose.brokers.rabbitmq.ladder`
``goose/NS/delay/LEVEL`` (exchange)       where a delay enters that level
``goose/NS/deliver`` (exchange)           where it leaves the ladder, to the queue of ready jobs
``goose/NS/words`` (exchange)             what workers tell each other
========================================  ===================================================

Neither namespaces nor queues may contain a slash, so no two names can meet. Arguments must be
the same in every process that declares a queue, or the server refuses: whatever is in them may
depend only on options that a whole application shares.
"""

from __future__ import annotations

from typing import Any

from goose.brokers.rabbitmq.options import Options

UNLIMITED = 1_000_000_000
"""A delivery limit that nothing reaches: RabbitMQ 4 drops after 20 deliveries if none is set."""


class Names:
    """The names of one namespace."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._root = f"goose/{options.namespace}"
        self.parked = f"{self._root}/parked"
        self.names = f"{self._root}/names"
        self.deliver = f"{self._root}/deliver"
        self.words = f"{self._root}/words"

    def ready(self, queue: str) -> str:
        """Return the name of the queue of ready jobs."""
        return f"{self._root}/q/{queue}"

    def dead(self, queue: str) -> str:
        """Return the name of the queue of dead jobs."""
        return f"{self._root}/dead/{queue}"

    def sign(self, name: str) -> str:
        """Return the queue that only one connection has: the one that looks at *name*."""
        return f"{name}/look"

    def queue_of(self, name: str) -> str | None:
        """Return the queue whose ready jobs *name* holds; None if it is something else."""
        prefix = self.ready("")
        return name[len(prefix) :] if name.startswith(prefix) else None

    def entry(self, level: int) -> str:
        """Return the exchange of a level of the ladder; the one below the lowest is `deliver`."""
        return f"{self._root}/delay/{level}" if level >= 0 else self.deliver

    def step(self, level: int, digit: int) -> str:
        """Return the queue in which a delay of that digit waits."""
        return f"{self._root}/delay/{level}/{digit}"

    # --- arguments -----------------------------------------------------------------------

    @property
    def _quorum(self) -> dict[str, Any]:
        factor = self._options.replication_factor
        size = {} if factor is None else {"x-quorum-initial-group-size": factor}
        return {"x-queue-type": "quorum", **size}

    def ready_arguments(self) -> dict[str, Any]:
        """Return how a queue of ready jobs is declared.

        What the server gives up after `delivery_limit` loans goes to the parked jobs, and
        leaves its queue only once it is stored there.
        """
        if self._options.queue_type == "classic":
            return {"x-queue-type": "classic"}
        return {
            **self._quorum,
            "x-delivery-limit": self._options.delivery_limit,
            **_dead_letter("", self.parked),
        }

    def dead_arguments(self) -> dict[str, Any]:
        """Return how a queue of dead jobs is declared: the oldest make way."""
        return {**self.kept_arguments(), "x-max-length": self._options.dead_max_count}

    def kept_arguments(self) -> dict[str, Any]:
        """Return how a queue is declared that keeps what it has."""
        return {**self._quorum, "x-delivery-limit": UNLIMITED}

    def step_arguments(self, level: int, milliseconds: int) -> dict[str, Any]:
        """Return how a step of the ladder is declared."""
        return {
            **self._quorum,
            "x-message-ttl": milliseconds,
            "x-delivery-limit": UNLIMITED,
            **_dead_letter(self.entry(level - 1)),
        }


def _dead_letter(exchange: str, key: str | None = None) -> dict[str, Any]:
    arguments = {
        "x-dead-letter-exchange": exchange,
        # It keeps its copy until the next queue has confirmed; the server wants this overflow.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return arguments if key is None else {**arguments, "x-dead-letter-routing-key": key}
