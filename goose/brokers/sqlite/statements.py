"""Every SQL statement, one per verb and named by it.

Lists go in as one JSON text and through ``json_each``, not row by row, because each step
of a statement hands the interpreter to other threads and takes it back, which among busy
threads costs milliseconds, under the file's only write lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from goose.brokers.sqlite.schema import TURNS, prefix

_ROW = "seq, CAST(id AS TEXT), queue, grp, CAST(body AS BLOB), at, receipt"
"""Another program may have stored a text as a body; it is lent as bytes like any other."""
_SHOWN = "CAST(j.id AS TEXT), j.queue, j.grp, CAST(j.body AS BLOB), j.state"
_ORPHAN = "j.seq, CAST(j.id AS TEXT), j.queue, j.grp, CAST(j.body AS BLOB), j.at, j.receipt, s.id, s.epoch"
_SESSION = "s.seq, s.id, s.epoch, s.state, s.deadline, s.boot, s.namespace, s.pid, s.started"
_LOANS = (
    "SELECT j.seq FROM json_each(?) AS loan CROSS JOIN {p}jobs AS j "
    "WHERE j.seq = CAST(loan.key AS INTEGER) AND j.receipt = loan.value"
)
_IDLE = "NOT EXISTS (SELECT 1 FROM {p}jobs WHERE state = 2 AND holder = {p}sessions.seq)"


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements for one namespace; ``{p}`` is the tables' prefix."""

    # In. Parameters of `store`, repeated for each row: id, queue, state, rank, at, grp, body.
    store: str = "INSERT INTO {p}jobs (id, queue, state, rank, at, grp, body) VALUES "
    # One job that is ready, not in line yet. Parameters: id, queue, now, group, body.
    store_fresh: str = (
        "INSERT INTO {p}jobs (id, queue, state, rank, at, grp, body) "
        "VALUES (?1, ?2, 4, ?3, ?3, ?4, ?5)"
    )
    # Putting fresh jobs in line: those after the last row that is none.
    newest: str = "SELECT state FROM {p}jobs ORDER BY seq DESC LIMIT 1"
    last_placed: str = "SELECT seq FROM {p}jobs WHERE +state < 4 ORDER BY seq DESC LIMIT 1"
    place: str = (
        "UPDATE OR IGNORE {p}jobs SET state = 1, rank = fresh.place FROM ("
        "SELECT f.seq AS number, max(max(f.rank) OVER (PARTITION BY f.queue ORDER BY f.seq), "
        "coalesce((SELECT max(r.rank) + 1 FROM {p}jobs AS r "
        "WHERE r.state = 1 AND r.queue = f.queue), 0)) AS place "
        "FROM {p}jobs AS f WHERE f.seq > ?1 AND +f.state = 4) AS fresh "
        "WHERE seq = fresh.number"
    )
    # The same where a fresh job has a group, or groups take turns already. Parameter: the last row
    # that is not fresh. The index, empty where there are no turns, would not be chosen by itself.
    shares: str = (
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM {p}jobs INDEXED BY {p}jobs_turns "
        "WHERE state = 1 AND rank >= {t}) "
        "OR EXISTS (SELECT 1 FROM {p}jobs WHERE seq > ? AND +state = 4 AND grp IS NOT NULL)"
    )
    fresh: str = (
        "SELECT seq, queue, grp, rank FROM {p}jobs WHERE seq > ? AND +state = 4 ORDER BY seq"
    )
    place_one: str = "UPDATE OR IGNORE {p}jobs SET state = 1, rank = ? WHERE seq = ?"
    last_turn: str = (
        "SELECT max(rank) FROM {p}jobs WHERE state = 1 AND rank >= {t} AND queue = ? AND grp IS ?"
    )
    last_place: str = (
        "SELECT max(rank) FROM {p}jobs WHERE state = 1 AND queue = ? AND rank >= {t} AND rank < ?"
    )
    turned: str = (
        "SELECT j.seq, j.queue, j.rank FROM json_each(?) AS loan CROSS JOIN {p}jobs AS j "
        "WHERE j.seq = CAST(loan.key AS INTEGER) AND j.receipt = loan.value AND j.rank >= {t} "
        "ORDER BY j.rank, j.seq"
    )
    move_loan: str = "UPDATE {p}jobs SET rank = ? WHERE seq = ?"
    first_turn: str = "SELECT min(rank) FROM {p}jobs WHERE state = 1 AND queue = ? AND rank >= {t}"
    drop_doubles: str = "DELETE FROM {p}jobs WHERE seq > ? AND +state = 4"
    last_rank: str = "SELECT max(rank) FROM {p}jobs WHERE state = 1 AND queue = ?"
    first_rank: str = "SELECT min(rank) FROM {p}jobs WHERE state = 1 AND queue = ?"

    # Lending.
    due: str = (
        "SELECT seq, grp, rank FROM {p}jobs WHERE state = 0 AND queue = ? AND rank <= ? "
        "ORDER BY rank, seq LIMIT ?"
    )
    promote_one: str = "UPDATE {p}jobs SET state = 1, at = rank, rank = ? WHERE seq = ?"
    promote_due: str = (
        "UPDATE {p}jobs SET state = 1, at = rank WHERE seq IN (SELECT seq FROM {p}jobs "
        "WHERE state = 0 AND queue = ? AND rank <= ? ORDER BY rank, seq LIMIT ?)"
    )
    next_due: str = "SELECT min(rank) FROM {p}jobs WHERE state = 0 AND queue = ?"
    has_ready: str = "SELECT 1 FROM {p}jobs WHERE state = 1 AND queue = ? LIMIT 1"
    first_ready: str = (
        f"SELECT {_ROW} FROM {{p}}jobs WHERE state = 1 AND queue = ? ORDER BY rank, seq LIMIT ?"
    )
    next_receipt: str = "UPDATE {p}meta SET receipts = receipts + 1"
    receipt: str = "SELECT receipts FROM {p}meta"
    lend: str = (
        "UPDATE {p}jobs SET state = 2, holder = ?, receipt = ?, lent_at = ? "
        "WHERE seq IN (SELECT value FROM json_each(?))"
    )

    # Settling. A loan is a pair "seq": receipt of one JSON object.
    not_ours: str = (
        "SELECT CAST(loan.key AS INTEGER), loan.value FROM json_each(?) AS loan "
        "LEFT JOIN {p}jobs AS j "
        "ON j.seq = CAST(loan.key AS INTEGER) AND j.receipt = loan.value WHERE j.seq IS NULL"
    )
    ack: str = f"DELETE FROM {{p}}jobs WHERE seq IN ({_LOANS})"
    release: str = (
        "UPDATE {p}jobs SET state = 1, holder = NULL, receipt = NULL, lent_at = NULL "
        f"WHERE seq IN ({_LOANS})"
    )
    note: str = "UPDATE {p}jobs SET body = ? WHERE seq = ? AND receipt = ?"
    body: str = "SELECT CAST(body AS BLOB) FROM {p}jobs WHERE seq = ? AND receipt = ?"
    settle: str = (
        "UPDATE {p}jobs SET queue = ?, state = ?, rank = ?, at = ?, grp = ?, body = ?, "
        "holder = NULL, receipt = NULL, lent_at = NULL WHERE seq = ? AND receipt = ?"
    )

    # Sessions.
    open: str = (
        "INSERT INTO {p}sessions (id, epoch, state, deadline, boot, namespace, pid, started) "
        "VALUES (?, ?, 0, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    )
    session: str = f"SELECT {_SESSION} FROM {{p}}sessions AS s WHERE s.id = ? AND s.epoch = ?"
    live_sessions: str = f"SELECT {_SESSION} FROM {{p}}sessions AS s WHERE s.state = 0"
    heartbeat: str = "UPDATE {p}sessions SET deadline = ? WHERE seq = ?"
    lose: str = "UPDATE {p}sessions SET state = 1 WHERE seq IN (SELECT value FROM json_each(?))"
    void: str = (
        "UPDATE {p}jobs SET receipt = NULL "
        "WHERE state = 2 AND holder IN (SELECT value FROM json_each(?))"
    )
    end: str = f"UPDATE {{p}}sessions SET state = 2, ended_at = ? WHERE seq = ? AND {_IDLE}"
    forget_lost: str = (
        f"UPDATE {{p}}sessions SET state = 2, ended_at = ? WHERE state = 1 AND {_IDLE}"
    )
    forget_old: str = "DELETE FROM {p}sessions WHERE state = 2 AND ended_at < ?"
    orphans: str = (
        f"SELECT {_ORPHAN} "
        "FROM {p}sessions AS s CROSS JOIN {p}jobs AS j ON j.state = 2 AND j.holder = s.seq "
        "WHERE s.state = 1 AND (?1 IS NULL OR s.seq = ?1) LIMIT ?2"
    )
    held: str = f"SELECT {_ROW} FROM {{p}}jobs WHERE state = 2 AND holder = ?"
    strays: str = (
        f"SELECT {_ORPHAN} "
        "FROM {p}jobs AS j LEFT JOIN {p}sessions AS s ON s.seq = j.holder "
        "WHERE j.state = 2 AND coalesce(s.state, 2) = 2 LIMIT ?"
    )
    some_lost: str = "SELECT 1 FROM {p}sessions WHERE state = 1 LIMIT 1"

    @classmethod
    def of(cls, namespace: str) -> Statements:
        """Return the statements for the tables of *namespace*."""
        names = {"{p}": prefix(namespace), "{t}": str(TURNS)}
        return cls(**{field.name: _filled(str(field.default), names) for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Inspection:
    """The inspector's and the upkeep's statements.

    ``{s}`` is a state's number, in the text because the planner picks a partial index only
    by a literal.
    """

    queues: str = (
        "WITH RECURSIVE q(name) AS (SELECT min(queue) FROM {p}jobs WHERE state = {s} UNION ALL "
        "SELECT (SELECT min(queue) FROM {p}jobs WHERE state = {s} AND queue > q.name) FROM q "
        "WHERE q.name IS NOT NULL) SELECT name FROM q WHERE name IS NOT NULL"
    )
    counts: str = "SELECT queue, count(*) FROM {p}jobs WHERE state = {s} GROUP BY queue"
    count: str = "SELECT count(*) FROM {p}jobs WHERE state = {s}"
    count_queue: str = "SELECT count(*) FROM {p}jobs WHERE state = {s} AND queue = ?"
    page: str = (
        f"SELECT j.rank, j.seq, {_SHOWN}, j.at, j.rank, NULL, NULL "
        "FROM {p}jobs AS j WHERE state = {s} AND queue = ? AND (rank, seq) > (?, ?) "
        "ORDER BY rank, seq LIMIT ?"
    )
    page_running: str = (
        f"SELECT j.lent_at, j.seq, {_SHOWN}, j.lent_at, j.rank, "
        "s.id, s.epoch FROM {p}jobs AS j LEFT JOIN {p}sessions AS s ON s.seq = j.holder "
        "WHERE j.state = 2 AND (?1 IS NULL OR j.queue = ?1) AND (j.lent_at, j.seq) > (?2, ?3) "
        "ORDER BY j.lent_at, j.seq LIMIT ?4"
    )
    find: str = (
        f"SELECT j.rank, j.seq, {_SHOWN}, coalesce(j.lent_at, j.at), "
        "j.rank, s.id, s.epoch FROM {p}jobs AS j LEFT JOIN {p}sessions AS s ON s.seq = j.holder "
        "WHERE j.id = ? AND j.state < 4"
    )
    oldest: str = (
        "SELECT min(at) FROM (SELECT at FROM (SELECT at FROM {p}jobs WHERE state = 1 "
        "AND queue = ?1 AND rank < 0 LIMIT 1000) UNION ALL SELECT at FROM (SELECT at "
        "FROM {p}jobs WHERE state = 1 AND queue = ?1 AND rank >= 0 ORDER BY rank, seq LIMIT 1) "
        "UNION ALL SELECT at FROM (SELECT at FROM {p}jobs WHERE state = 1 AND queue = ?1 "
        "AND rank >= {t} ORDER BY rank, seq LIMIT 1000))"
    )
    next_groups: str = (
        "SELECT grp FROM {p}jobs WHERE state = 1 AND queue = ? AND rank >= {t} "
        "ORDER BY rank, seq LIMIT ?"
    )
    in_state: str = (
        "SELECT id FROM {p}jobs WHERE state < 4 AND state = {s} "
        "AND id IN (SELECT value FROM json_each(?))"
    )
    delete: str = (
        "DELETE FROM {p}jobs WHERE state < 4 AND state = {s} "
        "AND id IN (SELECT value FROM json_each(?))"
    )
    move: str = (
        "UPDATE {p}jobs SET state = 1, rank = ?, at = ? WHERE id = ? AND state < 4 AND state = {s}"
    )
    queue_of: str = "SELECT queue, at, grp FROM {p}jobs WHERE id = ? AND state < 4 AND state = {s}"
    replay: str = (
        "UPDATE {p}jobs SET queue = ?, state = 1, rank = ?, at = ?, grp = ?, body = ? "
        "WHERE id = ? AND state < 4 AND state = {s}"
    )
    purge: str = (
        "DELETE FROM {p}jobs WHERE seq IN (SELECT seq FROM {p}jobs WHERE state = {s} "
        "AND (?1 IS NULL OR queue = ?1) AND at <= ?2 LIMIT ?3)"
    )
    last_kept: str = (
        "SELECT rank, seq FROM {p}jobs WHERE state = {s} AND queue = ? "
        "ORDER BY rank DESC, seq DESC LIMIT 1 OFFSET ?"
    )
    is_old: str = "SELECT 1 FROM {p}jobs WHERE state = {s} AND queue = ? AND rank < ? LIMIT 1"
    trim: str = (
        "DELETE FROM {p}jobs WHERE seq IN (SELECT seq FROM {p}jobs WHERE state = {s} "
        "AND queue = ? AND (rank, seq) <= (?, ?) ORDER BY rank, seq LIMIT ?)"
    )

    @classmethod
    def of(cls, namespace: str, state: int) -> Inspection:
        """Return the statements for jobs in *state* of the tables of *namespace*."""
        names = {"{p}": prefix(namespace), "{s}": str(state), "{t}": str(TURNS)}
        return cls(**{field.name: _filled(str(field.default), names) for field in fields(cls)})


def _filled(statement: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        statement = statement.replace(name, value)
    return statement
