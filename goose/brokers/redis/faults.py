"""What each error of the server or the driver means, in one table.

========= ======================================== =============================================
`Remedy`  what is known                            what is done
========= ======================================== =============================================
RETRY     the server refused for the moment;       again, soon, for up to a second; then
          nothing happened                         `BrokerUnavailable`
RECONNECT it is not (or no more) the right server; again over new connections, for up to a
          nothing happened                         second; then `BrokerUnavailable`
LOST      the answer did not come; what happened   `BrokerUnavailable`; calls that may be
          is unknown                               repeated without harm are, once
REFUSED   the server refused and will again;       `Refused`, a `BrokerError`,
                                                   with advice
          nothing happened
========= ======================================== =============================================

Errors are known by their code, the first word of what the server says. The driver cuts it off
where it has a class for it, so classes are looked up first; some have no code, and are known by
a part of their text. Before Redis 7 an error inside of
a script came with the code in the middle, after a dash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from redis import exceptions

from goose.errors import BrokerError, BrokerUnavailable


class Remedy(Enum):
    """What to do about an error."""

    RETRY = "retry"
    RECONNECT = "reconnect"
    LOST = "lost"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """What an error means."""

    remedy: Remedy
    advice: str


_RETRY, _RECONNECT, _LOST, _REFUSED = Remedy

NOBODY = Fault(_LOST, "connection refused; is Redis running there?")
"""Nobody listens at the address."""

CODES: Mapping[str, Fault] = {
    "LOADING": Fault(_RETRY, "it is loading its data after a start"),
    "BUSY": Fault(_RETRY, "a script runs for long there; SCRIPT KILL ends one that wrote nothing"),
    "TRYAGAIN": Fault(_RETRY, "a slot is just being moved to another node"),
    "CLUSTERDOWN": Fault(_RECONNECT, "the cluster has lost nodes; see CLUSTER INFO"),
    "MASTERDOWN": Fault(_RECONNECT, "it is a replica that has lost its master"),
    "READONLY": Fault(_RECONNECT, "it is a replica; connect to the master, or through Sentinel"),
    "UNBLOCKED": Fault(_RECONNECT, "it has just become a replica"),
    "MOVED": Fault(_RECONNECT, "the slot is on another node; for a cluster use redis+cluster://"),
    "ASK": Fault(_RECONNECT, "the slot is moving to another node; use redis+cluster://"),
    "OOM": Fault(_REFUSED, "its memory is full: raise maxmemory, or let workers drain the queues"),
    "MISCONF": Fault(
        _REFUSED, "it cannot save to its disk, so it takes nothing: see its log and disk space"
    ),
    "NOREPLICAS": Fault(_REFUSED, "fewer replicas are in touch than min-replicas-to-write asks"),
    "NOAUTH": Fault(_REFUSED, "it asks for a password: redis://user:password@host"),
    "WRONGPASS": Fault(_REFUSED, "user name or password are wrong"),
    "NOPERM": Fault(
        _REFUSED,
        "the user lacks a permission: grant ~goose:* and +@read +@write +@scripting +@connection "
        "+time +info",
    ),
    "DENIED": Fault(_REFUSED, "its protected mode refuses other hosts: set a password there"),
    "CROSSSLOT": Fault(_REFUSED, "it is a node of a cluster: use redis+cluster://"),
    "EXECABORT": Fault(_REFUSED, "it refused a part of a transaction"),
    "NOSCRIPT": Fault(_RETRY, "it forgot a script between two commands"),
    "": Fault(_REFUSED, "it refused the command"),
}
"""Meanings by code; ``""`` stands for every code not named."""

SAID: Mapping[str, Fault] = {
    "max number of clients": Fault(
        _LOST, "it has all the clients it may have: raise maxclients, or lower pool="
    ),
    # What a server says that gets a long command before a password.
    "unauthenticated": CODES["NOAUTH"],
    "CERTIFICATE_VERIFY_FAILED": Fault(
        _REFUSED,
        "its certificate cannot be trusted: name the file of the authority that signed it by "
        "tls_ca=, and the server as the certificate does",
    ),
    "CERTIFICATE_REQUIRED": Fault(
        _REFUSED, "it asks for a certificate of yours: tls_cert= and tls_key= name the files"
    ),
    # Perhaps the same, when the server hangs up before it has said so.
    "EOF occurred in violation of protocol": Fault(
        _LOST, "the TLS connection failed; if it asks for certificates, give tls_cert= and tls_key="
    ),
    "Connection refused": NOBODY,
}
"""Meanings of errors without a code, by a part of their text."""

CLASSES: Mapping[type[BaseException], str | Fault] = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.AuthorizationError: "NOPERM",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.ExecAbortError: "EXECABORT",
    exceptions.MaxConnectionsError: Fault(_RETRY, "all connections of the pool are in use"),
    exceptions.TimeoutError: Fault(_LOST, "it did not answer in time"),
    exceptions.ConnectionError: Fault(_LOST, "the connection failed"),
    exceptions.InvalidResponse: Fault(_LOST, "it answered something that is not Redis's protocol"),
    exceptions.ClusterError: Fault(_RECONNECT, "the cluster changed too often"),
    exceptions.RedisClusterException: Fault(_RECONNECT, "no node of the cluster could be asked"),
    OSError: Fault(_LOST, "the connection failed"),
}
"""Meanings by class, for what has no code any more; the most special class counts."""

CAUGHT = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Everything that this module judges."""

_UNREACHED = re.compile(r"Error \d+ connecting to .*Connection refused")
_CODE = re.compile(r"^-?([A-Z]{2,})\b|-([A-Z]{2,}) ")


def judge(error: BaseException) -> Fault:
    """Return what *error* means."""
    said = str(error)
    for part, fault in SAID.items():
        if part in said:
            return fault
    for class_ in type(error).__mro__:
        known = CLASSES.get(class_)
        if known is None:
            continue
        # NOAUTH and the like come as plain connection errors from some versions of the driver.
        code = _code(said)
        if isinstance(known, str):
            return CODES[code if code and code in CODES and known == "WRONGPASS" else known]
        return CODES[code] if code and code in CODES and code != "BUSY" else known
    return CODES.get(_code(said), CODES[""])


def _code(said: str) -> str:
    found = _CODE.search(said)
    return (found[1] or found[2]) if found else ""


class Refused(BrokerError):
    """The server refused a request, so that nothing happened."""


def is_unreached(error: BaseException) -> bool:
    """Say whether *error* came while connecting to where nobody listens, so before anything was sent."""
    # The driver has no class for it. The error's context would not do: it may be of the caller's.
    return isinstance(error, ConnectionRefusedError) or (
        isinstance(error, exceptions.ConnectionError) and bool(_UNREACHED.match(str(error)))
    )


def translated(error: BaseException, where: str, *, unsent: bool = False) -> BrokerError:
    """Return *error* as the caller of a broker is told, which names *where* the server is.

    Args:
        error: What the driver raised.
        where: The server.
        unsent: See `BrokerUnavailable`.
    """
    fault = judge(error)
    kind = Refused if fault.remedy is _REFUSED else BrokerUnavailable
    said = "" if fault is NOBODY else f" ({_words(error)})"
    told = kind(f"Redis at {where}: {fault.advice}{said}")
    if isinstance(told, BrokerUnavailable):
        told.unsent = unsent
    return told


def _words(error: BaseException) -> str:
    # Of a sentinel that knows no master the driver shows all of its own insides.
    return str(error).partition(" : <redis")[0] or type(error).__name__
