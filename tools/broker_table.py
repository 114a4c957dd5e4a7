"""Writes docs/capabilities.md: which broker can do what, read from the brokers' classes.

Run it after a change to a broker; a test fails while the page is out of date. A broker can do
what it has a method for, unless that is declared to return never; it sees the states it lists
as `visible`, or all; and it promises the capabilities it declares.
"""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from goose.brokers import base
from goose.stores import Keeper

PAGE = Path(__file__).parent.parent / "docs" / "capabilities.md"
BROKERS = ("memory", "sqlite", "redis", "amqp", "postgresql")
"""Schemes, in the order of the columns."""
HEAD = "| | " + " | ".join(BROKERS) + " | meaning |"
RULE = "|---|" + "---|" * (len(BROKERS) + 1)
START = "<!-- written by tools/broker_table.py -->"


def classes() -> list[type]:
    """Return the class of each broker."""
    known = {entry.name: entry for entry in entry_points(group="goose.brokers")}
    return [known[scheme].load() for scheme in BROKERS]


def has(broker: type, verb: str) -> bool:
    """Say whether *broker* has *verb*, other than to say that it is impossible."""
    method = getattr(broker, verb, None)
    if method is None:
        return False
    return "NoReturn" not in str(inspect.get_annotations(method).get("return"))


def first_sentence(documented: Any) -> str:
    """Return what a docstring begins with."""
    text = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    return text.replace("|", "or").replace("`", "").replace("*", "")


def protocols() -> list[type]:
    """Return every protocol of the contract, in the order of its module."""
    return [value for value in vars(base).values() if getattr(value, "_is_protocol", False)
            and value.__module__ == base.__name__]  # fmt: skip


def verbs(protocol: type) -> list[str]:
    """Return the methods of *protocol*, in their order."""
    return [name for name, value in vars(protocol).items() if inspect.isfunction(value)
            and not name.startswith("_")]  # fmt: skip


def row(label: str, marks: list[bool], meaning: str) -> str:
    """Return one line of a table."""
    return f"| {label} | {' | '.join('yes' if mark else 'no' for mark in marks)} | {meaning} |"


def meaning_of(member: base.Capability) -> str:
    """Return the sentence under a capability."""
    source = inspect.getsource(base.Capability)
    return source.split(f"{member.name} = ")[1].split('"""')[1].strip()


def table(rows: list[str]) -> str:
    """Return a table of *rows*."""
    return "\n".join([HEAD, RULE, *rows])


def tables() -> str:
    """Return the whole page below its introduction."""
    brokers = classes()
    parts = ["## Promises", table([
        row(member.value, [member in broker.capabilities for broker in brokers], meaning_of(member))  # type: ignore[attr-defined]
        for member in base.Capability
    ])]  # fmt: skip
    seen = [
        row(
            f"{state.value} jobs",
            [state in getattr(broker, "visible", base.State) for broker in brokers],
            f"Can be counted, listed and purged while they are {state.value}.",
        )
        for state in base.State
    ]
    store = row(
        "a store", [issubclass(broker, Keeper) for broker in brokers],
        "Keeps what is not a job beside the jobs, so that features which need that work without a setting.",
    )  # fmt: skip
    parts += ["## What can be seen, and a store", table([*seen, store])]
    for protocol in protocols():
        rows = [
            row(f"`{verb}`", [has(broker, verb) for broker in brokers],
                first_sentence(getattr(protocol, verb)))
            for verb in verbs(protocol)
        ]  # fmt: skip
        parts += [f"## {protocol.__name__}", first_sentence(protocol), table(rows)]
    return "\n\n".join(parts)


def text(page: str) -> str:
    """Return *page* with the tables as they should be."""
    before, _, _ = page.partition(START)
    return f"{before}{START}\n\n{tables()}\n"


if __name__ == "__main__":
    PAGE.write_text(text(PAGE.read_text("utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
