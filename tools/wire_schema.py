"""Writes docs/wire/schema.json from the fields of `goose.jobs.Job`.

Run it after a change to `Job` or `Failure`; a test fails while the file is out of date.
Names, order, defaults and descriptions are read from the source of the classes, so that
the schema cannot forget a field; the limits are those that `goose.jobs.decode` checks.
"""

# ruff: noqa: SLF001 - it writes down the limits themselves

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from goose import _fields, jobs
from goose.retries import TEN_YEARS

TARGET = Path(__file__).parent.parent / "docs" / "wire" / "schema.json"

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1}
INSTANT = {"type": "number", "minimum": 0, "exclusiveMaximum": _fields.LATEST}
OBJECT = {"type": "object"}
SECONDS = {"type": "number", "minimum": 0, "maximum": TEN_YEARS}
CALLBACK = {"type": ["string", "null"], "pattern": "^[^:]+:[^:]+$"}
CLASSES = {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:[^:]+$"}}

FIELDS: dict[str, dict[str, Any]] = {
    "id": TEXT | {"description": "Unique while the job is stored; a UUIDv7 when Goose made it."},
    "fn": TEXT | {"pattern": ":"},
    "args": {"type": "array"},
    "kwargs": OBJECT | {"description": "Keyword arguments as JSON values."},
    "queue": TEXT | {"pattern": f"^{jobs._QUEUE.pattern}$", "description": "The queue's name."},
    "group": TEXT | {"description": "Whose job it is, where queues are shared fairly."},
    "enqueued_at": INSTANT,
    "attempt": COUNT,
    "crashes": COUNT,
    "suspicions": COUNT,
    "retry": {"$ref": "#/$defs/retry"},
    "timeout": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": _fields.LONGEST,
        "description": "Seconds a single run may take; no limit without it.",
    },
    "failure": {"$ref": "#/$defs/failure", "description": "What is remembered of its errors."},
    "meta": OBJECT,
    "deferred_since": INSTANT,
    "origin": TEXT,
    "traits": OBJECT,
}
FAILURE: dict[str, dict[str, Any]] = {
    "type": TEXT,
    "message": TEXT | {"description": "Text of the last error."},
    "first_at": INSTANT,
    "last_at": INSTANT | {"description": "When it failed last."},
    "traceback": TEXT,
    "died_at": INSTANT | {"description": "When it was given up."},
    "reason": TEXT,
}
RETRY: dict[str, dict[str, Any]] = {
    "max_retries": {"type": ["integer", "null"], "minimum": 0},
    "backoff": {
        "description": "Seconds, a list of them, an exponential, or a function's name.",
        "oneOf": [
            SECONDS,
            {"type": "array", "items": SECONDS, "minItems": 1},
            {"type": "string", "pattern": "^[^:]+:[^:]+$"},
            {
                "type": "object",
                "properties": {
                    "first": SECONDS,
                    "factor": {"type": "number", "minimum": 1, "maximum": 1000},
                    "longest": SECONDS,
                },
            },
        ],
    },
    "queue": {"type": ["string", "null"]},
    "on_error": CALLBACK,
    "on_death": CALLBACK,
    "give_up_on": CLASSES,
    "succeed_on": CLASSES,
    "keep_dead": {"type": "boolean"},
}


def described(kind: type, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of *kind* with the descriptions of its source and what is *known*."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    properties: dict[str, Any] = {}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if name == "extra" or name.startswith("_"):
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = " ".join(str(after.value.value).replace("``", "").replace("`", "").split())
        field = {"description": text} | known[name] if text else dict(known[name])
        properties[name] = field if statement.value is None else nullable(field)
    return properties


def nullable(field: dict[str, Any]) -> dict[str, Any]:
    """Return *field* allowing null, which reads as absent."""
    if isinstance(field.get("type"), str):
        return field | {"type": [field["type"], "null"]}
    described = {"description": field["description"]} if "description" in field else {}
    rest = {key: value for key, value in field.items() if key != "description"}
    return described | {"anyOf": [rest, {"type": "null"}]}


def schema() -> dict[str, Any]:
    """Return the schema of a job's body."""
    required = ["v", "id", "fn", "args", "kwargs", "queue", "enqueued_at"]
    fields = described(jobs.Job, FIELDS)
    fields |= {
        name: FIELDS[name] | fields[name] | {"type": FIELDS[name]["type"]} for name in required[1:]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The body of a Goose job",
        "description": f"Version {jobs.VERSION}. What it means is in docs/wire-format.md.",
        "type": "object",
        "required": required,
        "properties": {"v": {"const": jobs.VERSION, "description": "Version of the format."}}
        | fields,
        "additionalProperties": True,
        "$defs": {
            "failure": {
                "type": "object",
                "required": list(jobs._FAILURE_REQUIRED),
                "properties": described(jobs.Failure, FAILURE),
            },
            "retry": {
                "type": "object",
                "description": "Fields of its Retry that differ from the default.",
                "properties": RETRY,
            },
        },
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
