"""A queue that anybody could write to: a worker survives it and runs nothing it was not offered."""

from __future__ import annotations

import importlib
import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State
from goose.brokers.sqlite import SQLiteBroker
from goose.errors import Undecodable
from goose.jobs import Envelope, decode, new_id, parse
from goose.worker.embedded import Worker

COUNT = 100_000
APP = """
called = 0

def take(*args, **kwargs):
    global called
    called += 1

def _private():
    raise AssertionError("not public, but offered: it is defined here")

import os
from os import system as borrowed
not_a_function = 7
"""
TRAPS = ("antigravity", "this", "hostile_trap", "idlelib.idle", "turtledemo")
NAMES = (
    "os:system", "builtins:eval", "builtins:exec", "subprocess:Popen", "hostile_app:borrowed",
    "hostile_app:os.system", "hostile_app:__builtins__", "hostile_app:take.__globals__",
    "hostile_app:__import__", "hostile_app:not_a_function", "hostile_app:", ":take", "hostile_app:tak",
    "goose.worker.supervisor:main", "pickle:loads", *(f"{trap}:main" for trap in TRAPS),
)  # fmt: skip
FORBIDDEN = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"}

seen: list[tuple[str, str]] = []
watching = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # A hook can never be taken away again, so it must cost nothing when it does not watch.
    if watching and (event in FORBIDDEN or event == "import"):
        seen.append((event, str(args[0]) if args else ""))


sys.addaudithook(_hook)


@pytest.fixture
def app(importable: Path) -> Any:
    """The only module that is offered, beside traps that must never be imported."""
    (importable / "hostile_app.py").write_text(APP)
    (importable / "hostile_trap.py").write_text("raise SystemExit('the trap was imported')")
    importlib.invalidate_caches()
    return importlib.import_module("hostile_app")


def _fields(chance: random.Random, identity: str) -> dict[str, Any]:
    return {
        "v": 1,
        "id": identity,
        "fn": "hostile_app:take",
        "args": [chance.randrange(100), "text", None],
        "kwargs": {"key": [1, {"deep": True}]},
        "queue": "default",
        "enqueued_at": 1_700_000_000.5,
        "attempt": 1,
        "retry": {"max_retries": 3, "backoff": 5.0},
        "failure": {"type": "a:b", "message": "m", "first_at": 1.0, "last_at": 2.0},
        "meta": {"tenant": "x"},
        "unknown": {"kept": 1},
    }


def _value(chance: random.Random) -> Any:
    return chance.choice(
        [None, True, -1, 0, 2**63, 10**400, 1e308, "", "x" * 500, "\u0000", "\ud800", [], {}, [[]],
         {"a": {}}, "default", "hostile_app:take", chance.choice(NAMES), -0.0, 99]
    )  # fmt: skip


def _by_structure(chance: random.Random, identity: str) -> bytes:
    fields = _fields(chance, identity)
    for _ in range(chance.randint(1, 3)):
        key = chance.choice(list(fields))
        match chance.randrange(4):
            case 0:
                fields[key] = _value(chance)
            case 1:
                fields["fn"] = chance.choice(NAMES)
            case 2 if len(fields) > 1:
                del fields[key]
            case _:
                fields[str(_value(chance))[:20]] = _value(chance)
    return json.dumps(fields, ensure_ascii=chance.random() < 0.9).encode(errors="surrogatepass")


def _by_bytes(chance: random.Random, identity: str) -> bytes:
    body = bytearray(json.dumps(_fields(chance, identity)).encode())
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body))
        match chance.randrange(5):
            case 0:
                body[at] = chance.randrange(256)
            case 1:
                del body[at : at + chance.randint(1, 40)]
            case 2:
                body[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
            case 3:
                body[at:at] = chance.choice(
                    [b'"v":1,', b"NaN", b"[" * 200, b"\x00", b'"id":"x",', b"1e999"]
                )
            case _:
                body = body[: at + 1]
        if not body:
            break
    return bytes(body)


def test_a_worker_survives_a_hundred_thousand_hostile_envelopes(
    app: Any, own_folder: Path, wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Mutated envelopes are each done, dead or waiting; nothing foreign is imported or called."""
    global watching
    caplog.set_level(logging.CRITICAL, logger="goose")
    chance = random.Random(20)
    broker = SQLiteBroker(
        f"sqlite:///{own_folder}/hostile.db?synchronous=normal&dead_max_count=1000000"
    )
    before = set(sys.modules)
    for _ in range(COUNT // 1000):
        identities = [new_id() for _ in range(1000)]
        mutate = [chance.choice([_by_structure, _by_bytes]) for _ in identities]
        broker.enqueue(
            [
                Envelope(i, "default", make(chance, i))
                for i, make in zip(identities, mutate, strict=True)
            ]
        )
    with Worker(broker, allow=["hostile_app"], concurrency=2) as worker:
        watching = True
        try:
            wait_until(worker.is_empty, seconds=100, what="the queue is drained")
        finally:
            watching = False
        done = worker.statistics().succeeded

    counts = {state: broker.count(state) for state in State}
    # On a slow machine the first of those that wait for a newer worker are due again by now.
    waiting = counts[State.SCHEDULED] + counts[State.READY]
    assert 0 == counts[State.RUNNING]
    assert COUNT == done + counts[State.DEAD] + waiting
    assert done == app.called
    assert min(done, counts[State.DEAD], waiting) > 1000, counts
    foreign = {name for event, name in seen if event == "import"} & {*TRAPS, "hostile_trap"}
    assert set() == foreign
    assert [] == [pair for pair in seen if pair[0] in FORBIDDEN]
    assert not {*TRAPS, "hostile_trap"} & (set(sys.modules) - before)
    _each_is_accounted_for(broker)
    broker.close()


def _each_is_accounted_for(broker: SQLiteBroker) -> None:
    """Check what waits and what is dead, by its own content."""
    for state in (State.DEAD, State.SCHEDULED, State.READY):
        after: str | None = None
        while True:
            page = broker.page(state, limit=1000, after=after)
            for found in page.items:
                _check(state, found.envelope)
            after = page.next
            if after is None:
                break


def _check(state: State, envelope: Envelope) -> None:
    try:
        job = decode(envelope)
    except Undecodable:
        if state is not State.DEAD:  # it waits for a newer worker, which its version must say
            assert parse(envelope.body)["v"] > 1
        return
    if state is State.DEAD:
        assert job.failure is not None
        assert job.failure.reason, job
    else:
        assert job.deferred_since is not None or job.attempt, job
