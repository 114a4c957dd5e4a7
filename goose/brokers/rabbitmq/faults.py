"""What each error of the server or the driver means, in one table.

A server closes the channel, or the connection, and says why with a number; the driver has
classes for the rest. Whether something happened is another question: what was published and
not confirmed is unknown, whatever the error was.

========= ======================================== =============================================
`Remedy`  what is known                            what is done
========= ======================================== =============================================
RETRY     it is away, or was, or is not ready      again over a new connection until the deadline
                                                   of the call; then `BrokerUnavailable`
REFUSED   the server refused and will again        `Refused`, a `BrokerError`, with advice
========= ======================================== =============================================
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pika import exceptions

from goose.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger("goose.brokers.rabbitmq")


class Remedy(Enum):
    """What to do about an error."""

    RETRY = "retry"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error means."""

    remedy: Remedy
    advice: str


_RETRY, _REFUSED = Remedy

CODES: Mapping[int, Fault] = {
    311: Fault(_REFUSED, "the body is larger than the server's max_message_size"),
    312: Fault(_REFUSED, "the queue is gone"),
    320: Fault(_RETRY, "an operator closed the connection, or the node is going down"),
    402: Fault(_REFUSED, "there is no such vhost, or it is down"),
    403: Fault(_REFUSED, "user name or password are wrong, or the user may not do that here"),
    404: Fault(_RETRY, "a queue or exchange is gone; it is declared again"),
    405: Fault(_RETRY, "somebody else uses that queue exclusively at the moment"),
    406: Fault(
        _REFUSED,
        "a queue of that name exists with other properties: give all processes the same "
        "queue_type, delivery_limit, dead_max_count and replication_factor, or another namespace",
    ),
    501: Fault(_RETRY, "it did not understand a frame"),
    504: Fault(_RETRY, "it did not understand a channel"),
    505: Fault(_RETRY, "it did not expect a frame"),
    506: Fault(_RETRY, "it is out of resources"),
    530: Fault(_REFUSED, "there is no such vhost, the user may not use it, or a limit is reached"),
    540: Fault(_REFUSED, "it does not know how to do that; RabbitMQ 3.10 or later is needed"),
    541: Fault(_RETRY, "it has an internal error, as when a queue has no leader"),
}
"""Meanings of AMQP's reply codes."""

TIMED_OUT = "delivery acknowledgement on channel"
"""What a server says when a job ran for longer than it lends (``consumer_timeout``)."""

NOBODY = Fault(_RETRY, "connection refused; is RabbitMQ running there?")
"""Nobody listens at the address."""

CLASSES: Mapping[type[BaseException], Fault] = {
    exceptions.ProbableAuthenticationError: Fault(_REFUSED, "user name or password are wrong"),
    exceptions.AuthenticationError: Fault(_REFUSED, "it does not offer a way to log in with these"),
    exceptions.ProbableAccessDeniedError: Fault(
        _REFUSED, "there is no such vhost, or the user may not use it"
    ),
    exceptions.IncompatibleProtocolError: Fault(_RETRY, "it closed at once; is it RabbitMQ?"),
    ssl.SSLCertVerificationError: Fault(
        _REFUSED,
        "its certificate cannot be trusted: name the file of the authority that signed it by "
        "tls_ca=, and the server as the certificate does",
    ),
    exceptions.AMQPHeartbeatTimeout: Fault(_RETRY, "it was silent for too long"),
    exceptions.AMQPError: Fault(_RETRY, "the connection failed"),
    ConnectionRefusedError: NOBODY,
    OSError: Fault(_RETRY, "the connection failed"),
}
"""Meanings by class, for what has no code; the most special class counts."""


SAID: Mapping[str, Fault] = {
    "CERTIFICATE_REQUIRED": Fault(
        _REFUSED, "it asks for a certificate of yours: tls_cert= and tls_key= name the files"
    ),
}
"""Meanings of errors that only their text tells apart, by a part of it."""


def judge(error: BaseException) -> Fault:
    """Return what *error* means."""
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        if is_timeout(error):
            return Fault(_RETRY, "a job ran for longer than its consumer_timeout")
        if error.reply_code in CODES:
            return CODES[error.reply_code]
    inner = _inner(error)
    if inner is not None:
        return judge(inner)
    for text, fault in SAID.items():
        if text in str(error):
            return fault
    for class_ in type(error).__mro__:
        if class_ in CLASSES:
            return CLASSES[class_]
    return Fault(_RETRY, "the connection failed")


def _inner(error: BaseException) -> BaseException | None:
    """Return what the driver has wrapped: a failed attempt carries what went wrong at each address."""
    wrapped = [*getattr(error, "exceptions", ()), getattr(error, "exception", None)]
    if isinstance(error, exceptions.AMQPConnectionError):
        wrapped += error.args
    causes = [cause for cause in wrapped if isinstance(cause, BaseException)]
    return causes[-1] if causes else None


def is_timeout(error: BaseException) -> bool:
    """Say whether the server took a job back because it ran for longer than `consumer_timeout`."""
    return isinstance(error, exceptions.ChannelClosed) and TIMED_OUT in error.reply_text


class Refused(BrokerError):
    """The server refused a request, so that nothing happened."""


def translated(error: BaseException, where: str, *, unsent: bool = False) -> BrokerError:
    """Return *error* as the caller of a broker is told, which names *where* the server is.

    Args:
        error: What the driver raised.
        where: The server.
        unsent: See `BrokerUnavailable`.
    """
    if isinstance(error, BrokerError):
        return error
    fault = judge(error)
    kind = Refused if fault.remedy is _REFUSED else BrokerUnavailable
    words = "" if fault is NOBODY else f" ({said(error)})"
    told = kind(f"RabbitMQ at {where}: {fault.advice}{words}")
    if isinstance(told, BrokerUnavailable):
        told.unsent = unsent
    return told


def unsent(error: BrokerUnavailable) -> BrokerUnavailable:
    """Return *error*, which came before anything was sent; another object, as others may hold it."""
    told = BrokerUnavailable(*error.args)
    told.unsent = True
    return told


def said(error: BaseException) -> str:
    """Return the server's or driver's own words."""
    inner = _inner(error)
    if inner is not None:
        return said(inner)
    if isinstance(error, exceptions.ConnectionClosed | exceptions.ChannelClosed):
        return f"{error.reply_code} {error.reply_text}"
    return repr(error) if not str(error) else f"{type(error).__name__}: {error}"


def tell(role: str, error: Exception) -> None:
    """Log that the connection for *role* failed: as a defect, unless it was the network."""
    # The driver asks a socket that is gone already who is there, and may wrap the answer.
    if isinstance(error, OSError) or isinstance(error.__context__, OSError):
        logger.warning("the %s connection failed: %r; it is replaced", role, error)
    else:
        logger.error("a defect on the %s connection; it is replaced", role, exc_info=error)
