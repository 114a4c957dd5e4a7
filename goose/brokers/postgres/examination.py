"""What ``goose doctor`` finds about a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from goose.brokers.examining import Examination, Finding, Kind

UNSAFE = Kind(
    "G341", "error", "a power cut may ruin the database",
    "What was stored may be gone or damaged, jobs among it.",
    "set fsync and full_page_writes to on",
)  # fmt: skip
FORGETS = Kind(
    "G342", "error", "commits do not wait for the disk",
    "A crash of the server forgets jobs that were just stored, and that others were just done.",
    "synchronous_commit on, or at least local, for the broker's role: ALTER ROLE … SET …",
)  # fmt: skip
ENCODING = Kind(
    "G343", "error", "the database's encoding is not UTF8",
    "It cannot store every id.",
    "use a database of UTF8",
)  # fmt: skip
CROWDED = Kind(
    "G344", "warning", "PostgreSQL has nearly as many connections as it takes",
    "Beyond max_connections they are refused.",
    "raise max_connections, lower `pool` or the number of processes, or use a pooler",
)  # fmt: skip
UNCLEANED = Kind(
    "G345", "warning", "autovacuum is off",
    "Rows of jobs that are done stay, and every call gets slower.",
    "autovacuum on",
)  # fmt: skip
HELD_OPEN = Kind(
    "G346", "warning", "a transaction has been open for long",
    "Nothing that was deleted since can be cleaned up, so every call gets slower.",
    "end it: pg_stat_activity says whose it is; set idle_in_transaction_session_timeout",
)  # fmt: skip
WRAPS = Kind(
    "G347", "warning", "transaction ids run out",
    "Before they do, the database refuses every write.",
    "VACUUM the database, and see what keeps autovacuum from it",
)  # fmt: skip
KINDS = (UNSAFE, FORGETS, ENCODING, CROWDED, UNCLEANED, HELD_OPEN, WRAPS)
SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "server_encoding", "autovacuum")
NEARLY = 0.8
"""The part of a limit from which on it is nearly reached."""
OPEN_FOR = 1800.0
"""Seconds from which on a transaction is open for long."""
IDS = 2**31
"""Transactions after which ids would come again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server said of itself, in the order of examine.sql; None is what we may not see."""

    clock: float
    version: str
    connections: int
    most_connections: int
    oldest_transaction: float | None
    """Seconds it has been open."""
    age: int | None
    """Transactions since the oldest id in use."""


def examine(seen: Seen, settings: Mapping[str, str], ahead: float) -> Examination:
    """Return what there is to say about a server of which this was *seen*."""
    return Examination(f"PostgreSQL {seen.version}", ahead, [*_found(seen, settings)])


def _found(seen: Seen, settings: Mapping[str, str]) -> Iterator[Finding]:
    unsafe = [name for name in ("fsync", "full_page_writes") if settings.get(name) == "off"]
    if unsafe:
        yield Finding(UNSAFE, ", ".join(f"{name} is off" for name in unsafe))
    if settings.get("synchronous_commit") == "off":
        yield Finding(FORGETS, "synchronous_commit is off")
    encoding = settings.get("server_encoding", "UTF8")
    if encoding != "UTF8":
        yield Finding(ENCODING, f"it is {encoding}")
    if seen.connections > NEARLY * seen.most_connections:
        about = {"connections": seen.connections, "limit": seen.most_connections}
        yield Finding(CROWDED, f"{seen.connections:,} of {seen.most_connections:,}", about)
    if settings.get("autovacuum") == "off":
        yield Finding(UNCLEANED, "autovacuum is off for the whole server")
    if seen.oldest_transaction is not None and seen.oldest_transaction > OPEN_FOR:
        detail = f"for {seen.oldest_transaction / 3600:.1f} h"
        yield Finding(HELD_OPEN, detail, {"seconds": seen.oldest_transaction})
    if seen.age is not None and seen.age > NEARLY * IDS:
        yield Finding(WRAPS, f"{IDS - seen.age:,} are left", {"left": IDS - seen.age})
