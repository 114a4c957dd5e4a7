"""What each error of the server or the driver means, in one table.

========= ======================================== =============================================
`Remedy`  what is known                            what is done
========= ======================================== =============================================
RETRY     the server refused for the moment;       again, soon, for up to two seconds; then
          nothing happened                         `BrokerUnavailable`
RECONNECT it is not the right server, or this      again over new connections, as long; then
          connection is stale; nothing happened    `BrokerUnavailable`
LOST      the answer did not come; what happened   `BrokerUnavailable`; calls that may be
          is unknown                               repeated without harm are, once
REFUSED   the server refused and will again;       `Refused`, a `BrokerError`, with advice
          nothing happened
========= ======================================== =============================================

Errors are known by their SQLSTATE, or by its first two letters, its class. One that has none
comes from the driver: the connection failed, or could not be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import psycopg

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

_PASSWORD = Fault(_REFUSED, "user name or password are wrong: postgresql://user:password@host/db")
_TABLES = Fault(_REFUSED, "its tables are missing: run `goose migrate` once, as their owner")
_VERSIONS = Fault(
    _REFUSED, "its tables are of another version: run `goose migrate`, as their owner"
)
_POOLER = Fault(_REFUSED, "a pooler stands in between: add notify=off to the broker's URL")

STATES: Mapping[str, Fault] = {
    "08": Fault(_LOST, "the connection failed"),
    "0A000": Fault(_RECONNECT, "a statement prepared before a change of the tables is stale"),
    "22": Fault(_REFUSED, "it cannot store such a value"),
    "25006": Fault(_RECONNECT, "it is a standby; name the primary's host too"),
    "26000": _POOLER,
    "42P05": _POOLER,
    "28": _PASSWORD,
    "3D000": Fault(_REFUSED, "there is no such database: createdb"),
    "3F000": _TABLES,
    "40001": Fault(_RETRY, "others changed the same rows"),
    "40P01": Fault(_RETRY, "it ended a deadlock"),
    "40003": Fault(_LOST, "it does not know itself whether it was done"),
    "42501": Fault(
        _REFUSED,
        "the user lacks a privilege: see the roles in docs/postgres.md, or run "
        "`goose migrate` as the owner of the database",
    ),
    "42703": _VERSIONS,
    "42883": _VERSIONS,
    "42P01": _TABLES,
    "53100": Fault(_REFUSED, "its disk is full"),
    "53200": Fault(_REFUSED, "it is out of memory"),
    "53300": Fault(
        _RETRY, "it has all the clients it may have: raise max_connections, or lower pool="
    ),
    "53": Fault(_REFUSED, "it is short of something"),
    "55P03": Fault(
        _RETRY, "a row or table stayed locked; is a long transaction or a migration open?"
    ),
    "57014": Fault(_RETRY, "it gave up on the statement, which took too long"),
    "57P01": Fault(_LOST, "the connection was ended by an administrator"),
    "57P02": Fault(_LOST, "the server crashed"),
    "57P03": Fault(_RETRY, "it is starting up or shutting down"),
    "57": Fault(_LOST, "somebody intervened there"),
    "58": Fault(_REFUSED, "its disk failed"),
    "XX": Fault(_REFUSED, "it has a defect: see its log"),
    "": Fault(_REFUSED, "it refused the statement"),
}
"""Meanings by SQLSTATE, or by class; ``""`` stands for every one not named."""

_NOWHERE = Fault(_LOST, "the connection failed")
NOBODY = Fault(_LOST, "connection refused; is PostgreSQL running there?")
"""Nobody listens at the address."""
_VALUE = Fault(_REFUSED, "it cannot store such a value")
_SAID = {
    "password authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "no pg_hba.conf entry": _PASSWORD,
    "does not exist": Fault(_REFUSED, "there is no such database or user"),
    "session is read-only": STATES["25006"],
    "session is not read-only": STATES["25006"],
    "starting up": STATES["57P03"],
    "shutting down": STATES["57P03"],
    "recovery mode": STATES["57P03"],
    "too many clients": STATES["53300"],
    "remaining connection slots": STATES["53300"],
    "too many connections": STATES["53300"],
    "Connection refused": NOBODY,
}
"""Meanings by words: an error of connecting has no SQLSTATE."""

MISSING = ("42P01", "3F000")
"""What is said of tables that are not there."""
CAUGHT = (psycopg.Error, OSError, UnicodeEncodeError)
"""Everything that this module judges."""


def judge(error: BaseException) -> Fault:
    """Return what *error* means."""
    state = getattr(error, "sqlstate", None)
    if state:
        return STATES.get(state) or STATES.get(state[:2]) or STATES[""]
    if isinstance(error, UnicodeEncodeError) or (
        isinstance(error, psycopg.DataError) and not isinstance(error, psycopg.OperationalError)
    ):
        return _VALUE
    said = str(error)
    for words, fault in _SAID.items():
        if words in said:
            return fault
    return _NOWHERE if isinstance(error, (psycopg.OperationalError, OSError)) else STATES[""]


class Refused(BrokerError):
    """The server refused a request, so that nothing happened."""


def translated(error: BaseException, where: str, *, unsent: bool = False) -> BrokerError:
    """Return *error* as the caller of a broker is told, which names *where* the server is.

    Args:
        error: What the driver raised.
        where: The server and database.
        unsent: See `BrokerUnavailable`.
    """
    fault = judge(error)
    kind = Refused if fault.remedy is _REFUSED else BrokerUnavailable
    said = " ".join(str(error).split()) or type(error).__name__
    words = "" if fault is NOBODY else f" ({said})"
    told = kind(f"PostgreSQL at {where}: {fault.advice}{words}")
    if isinstance(told, BrokerUnavailable):
        told.unsent = unsent
    return told
