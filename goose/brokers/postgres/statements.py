"""The statements of ``sql/``, read once and made fit for one namespace.

A file holds one statement and is named for its verb. In it ``{s}`` stands for the schema,
``{channel}`` for the schema's name as a text, ``{now}`` for this instant in microseconds,
``{turns}`` for `TURNS`, and ``{state}`` for a state's number, which is in the text because the planner picks a partial
index only by a literal. Parameters are psycopg's: ``%(name)s``, or ``%(name)b`` where they
travel as binary.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

SCHEDULED, READY, RUNNING, DEAD = range(4)
"""States of a job."""

TURNS = 1 << 61
"""Ranks above it are turns of groups and no instants; it is itself the rank of no job, see schema_4.sql."""
_VERSIONS = ("schema", "schema_2", "schema_3", "schema_4")
VERSION = len(_VERSIONS)
"""Version of the tables that the statements make."""
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_NOTES = re.compile(r"^\s*--.*\n", re.MULTILINE)


@cache
def _text(name: str) -> str:
    return (files("goose.brokers.postgres") / "sql" / f"{name}.sql").read_text("utf-8")


@cache
def statement(name: str, schema: str, state: int | None = None) -> bytes:
    """Return the statement *name* for the tables in *schema*, without its comments, as it is sent.

    Args:
        name: Of the file.
        schema: Letters, digits and underscores.
        state: Of the jobs it is about, for statements that are made for one state.
    """
    text = _NOTES.sub("", _text(name)).strip()
    return _filled(text, schema).replace("{state}", str(state)).encode()


def script(schema: str, above: int = 0) -> str:
    """Return what makes the tables in *schema* of those of version *above*, for people to read.

    Every version has a file of its own, which adds to the tables of the one before.
    """
    return "\n".join(_filled(_text(name), schema) for name in _VERSIONS[above:])


def _filled(text: str, schema: str) -> str:
    text = text.replace("{s}", f'"{schema}"').replace("{channel}", schema).replace("{now}", _NOW)
    return text.replace("{turns}", str(TURNS))
