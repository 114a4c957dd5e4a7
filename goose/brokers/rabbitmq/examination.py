"""What ``goose doctor`` finds about a RabbitMQ server: little, since AMQP lets nobody look.

Alarms, policies and the length of its disk are told by the server's own tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from goose.brokers.examining import Examination, Finding, Kind
from goose.brokers.rabbitmq.options import Options

OLD = Kind(
    "G331", "error", "RabbitMQ is too old",
    "Quorum queues there do not know what delays are built of.",
    "use RabbitMQ 3.10 or later",
)  # fmt: skip
CLASSIC = Kind(
    "G332", "note", "queue_type=classic",
    "Ready jobs are on one node only, and wait for it, or are lost with its disk.",
    "leave it out for quorum queues; stored jobs stay where they are",
)  # fmt: skip
UNVERIFIED = Kind(
    "G333", "warning", "the server's certificate is not verified",
    "Whoever is in between can read jobs, and store others.",
    "leave tls_verify out; tls_ca names a certificate of your own",
)  # fmt: skip
KINDS = (OLD, CLASSIC, UNVERIFIED)
OLDEST = (3, 10)


def examine(options: Options, said: Mapping[str, Any]) -> Examination:
    """Return what there is to say about the server, which *said* this of itself at the handshake."""
    version = str(said.get("version") or "")
    server = f"{said.get('product') or 'RabbitMQ'} {version or 'of unknown version'}"
    return Examination(server, None, [*_found(options, version)])


def _found(options: Options, version: str) -> Iterator[Finding]:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        yield Finding(OLD, f"version {version}")
    if options.queue_type == "classic":
        yield Finding(CLASSIC, options.where)
    if options.tls and not options.tls_verify:
        yield Finding(UNVERIFIED, f"tls_verify=false for {options.where}")
