"""A job and its bytes: what travels, what is refused, and that nothing else can happen."""

from __future__ import annotations

import base64
import copy
import importlib.util
import json
import math
import os
import pickle
import random
import re
import signal
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goose import _ids, errors
from goose.errors import ConfigError, NewerVersion, PayloadTooLarge, Undecodable
from goose.jobs import (
    MAX_BYTES,
    MAX_DEPTH,
    Envelope,
    Failure,
    Frame,
    Job,
    check_queue,
    decode,
    dump,
    encode,
    new_id,
    new_ids,
    parse,
    seal,
)

WIRE = Path(__file__).parent.parent / "docs" / "wire"
SCHEMA = jsonschema.Draft202012Validator(json.loads((WIRE / "schema.json").read_text()))


NESTED: Any = []
for _ in range(MAX_DEPTH):
    NESTED = [NESTED]


def vectors(name: str) -> list[Any]:
    """Read the published vectors, each under its own name."""
    found = json.loads((WIRE / "vectors" / f"{name}.json").read_text())["vectors"]
    return [pytest.param(vector, id=vector["name"]) for vector in found]


def body_of(vector: dict[str, Any]) -> bytes:
    """Return the bytes of a vector."""
    if "base64" in vector:
        return base64.b64decode(vector["base64"])
    return str(vector["body"]).encode()


def job(**fields: Any) -> Job[Any]:
    """Make a job; only what matters is given."""
    return Job(
        **{
            "id": "j",
            "fn": "app:f",
            "args": (1,),
            "kwargs": {"a": "b"},
            "queue": "q",
            "enqueued_at": 1.5,
        }
        | fields
    )


def nested(levels: int) -> list[Any]:
    """Return a list of lists of lists …"""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


# --- the published format ----------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("valid"))
def test_a_valid_vector_is_read_and_written_back(vector: dict[str, Any]) -> None:
    """Each published body gives the job it says, and that job the same body again."""
    reads = dict(vector["reads"])
    if "failure" in reads:
        reads["failure"] = Failure(**reads["failure"])
    expected = Job(**reads | {"args": tuple(reads["args"])})

    found = decode(Envelope(vector["id"], vector["queue"], body_of(vector)))

    assert expected == found
    assert repr(expected) == repr(found)
    assert json.loads(vector.get("writes", vector["body"])) == json.loads(encode(found))


@pytest.mark.parametrize("vector", vectors("valid"))
def test_a_valid_vector_fits_the_schema(vector: dict[str, Any]) -> None:
    """The schema takes what Goose reads, and what Goose writes."""
    SCHEMA.validate(json.loads(vector["body"]))
    SCHEMA.validate(json.loads(vector.get("writes", vector["body"])))


@pytest.mark.parametrize("vector", vectors("invalid"))
def test_an_invalid_vector_is_refused(vector: dict[str, Any]) -> None:
    """Each published mistake is the error it says, and the schema sees those it can."""
    with pytest.raises(getattr(errors, vector["error"])) as caught:
        decode(Envelope(vector["id"], vector["queue"], body_of(vector)))

    assert (vector["error"] == "NewerVersion") == isinstance(caught.value, NewerVersion)
    assert len(str(caught.value)) < 200
    if vector["schema"] is not None:
        assert vector["schema"] == SCHEMA.is_valid(json.loads(vector["body"]))


def test_the_schema_is_up_to_date() -> None:
    """docs/wire/schema.json is what tools/wire_schema.py would write now."""
    path = WIRE.parent.parent / "tools" / "wire_schema.py"
    spec = importlib.util.spec_from_file_location("wire_schema", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    assert tool.text() == (WIRE / "schema.json").read_text()
    SCHEMA.check_schema(SCHEMA.schema)


# --- round trips -------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
objects = st.dictionaries(texts, values, max_size=4)
instants = st.floats(0, 253_402_300_799) | st.integers(0, 253_402_300_799)
counts = st.integers(0, 2**31 - 1)
failures = st.builds(Failure, texts, texts, instants, instants, texts, st.none() | instants, texts)
jobs = st.builds(
    Job,
    id=texts,
    fn=st.builds("{}:{}".format, texts, texts),
    args=st.lists(values, max_size=4).map(tuple),
    kwargs=objects,
    queue=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}", fullmatch=True),
    group=st.none() | texts,
    enqueued_at=instants,
    attempt=counts,
    crashes=counts,
    suspicions=counts,
    retry=st.none() | st.dictionaries(texts, values, min_size=1, max_size=3),
    timeout=st.none() | st.floats(0, 1e9, exclude_min=True),
    failure=st.none() | failures,
    meta=objects,
    traits=objects,
    deferred_since=st.none() | instants,
    extra=st.dictionaries(texts.map("x-{}".format), values, max_size=3),
)


@given(jobs)
def test_every_job_comes_back_to_the_letter(sent: Job[Any]) -> None:
    """Whatever a job holds, its body is one object that fits the schema and gives it back."""
    envelope = seal(sent)
    back = decode(envelope)

    assert (sent.id, sent.queue, sent.group) == (envelope.id, envelope.queue, envelope.group)
    assert sent == back
    assert repr(sent) == repr(back)
    assert envelope.body == encode(back)
    SCHEMA.validate(json.loads(envelope.body) | {"retry": {}})


@given(jobs, st.lists(values, max_size=4).map(tuple), objects, st.floats(0, 253_402_300_799))
def test_a_frame_seals_as_any_job_is_sealed(
    like: Job[Any], args: tuple[Any, ...], kwargs: dict[str, Any], at: float
) -> None:
    """Whatever jobs of a frame share, and whatever not, their envelopes are those of `seal`."""
    like = like.evolve(extra={})
    sent = like.evolve(id=new_id(), args=args, kwargs=kwargs, enqueued_at=at)

    assert seal(sent) == Frame(like).seal(sent, MAX_BYTES)


@pytest.mark.parametrize(
    ("args", "max_bytes"),
    [((math.nan,), MAX_BYTES), (("x" * 200,), 200), ((NESTED,), MAX_BYTES), (({1},), MAX_BYTES)],
    ids=["nan", "too large", "too deep", "no JSON"],
)
def test_a_frame_refuses_what_seal_refuses(args: tuple[Any, ...], max_bytes: int) -> None:
    """An argument that cannot be stored is told by the same error as for any other job."""
    refused = job(args=args)

    with pytest.raises((ValueError, PayloadTooLarge)) as expected:
        seal(refused, max_bytes=max_bytes)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        Frame(job()).seal(refused, max_bytes)


def test_a_frame_takes_many_brackets_for_what_they_are() -> None:
    """As many brackets as levels are allowed, side by side, are stored."""
    flat = job(args=([[]] * 2 * MAX_DEPTH,))

    assert seal(flat) == Frame(job()).seal(flat, MAX_BYTES)


def test_defaults_are_not_written() -> None:
    """The body of a plain job has the required keys and no more."""
    assert (
        b'{"v":1,"id":"j","fn":"app:f","args":[1],"kwargs":{"a":"b"},"queue":"q","enqueued_at":1.5}'
        == encode(job())
    )


def test_unknown_keys_cannot_replace_known_ones() -> None:
    """What came as unknown is written beside the job's own fields, never over them."""
    body = json.loads(encode(job(extra={"fn": "os:system", "v": 9, "later": 1})))

    assert ("app:f", 1, 1) == (body["fn"], body["v"], body["later"])


def test_a_decoded_job_is_like_any_other() -> None:
    """It is frozen, can be evolved, copied and pickled, and shares with others only what stays empty."""
    one, other = decode(seal(job())), decode(seal(job()))

    assert job() == one
    assert {job(): 1}[one] == 1
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    assert 3 == one.evolve(attempt=3).attempt
    assert "j" == one.evolve(attempt=3).id
    for shared in (
        one.meta,
        other.extra,
        pickle.loads(pickle.dumps(one)).traits,
        copy.deepcopy(one).meta,
    ):
        assert {} == shared
        for change in ("__setitem__", "update", "setdefault", "__ior__"):
            with pytest.raises(TypeError, match=r"job\.evolve"):
                getattr(shared, change)("a", 1)
    assert {"a": 1} == {**one.meta, "a": 1} == one.meta | {"a": 1}
    with pytest.raises(FrozenInstanceError):
        one.attempt = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.evolve(attemptt=1)


def test_an_envelope_says_when() -> None:
    """`seal` hands delay and instant to the broker and keeps them out of the body."""
    assert Envelope("j", "q", encode(job()), 5.0, None, None) == seal(job(), delay=5.0)
    assert Envelope("j", "q", encode(job()), None, 7.0, None) == seal(job(), due_at=7.0)


def test_the_bytes_of_a_later_version_survive() -> None:
    """`parse` and `dump` carry a body this version has no `Job` for."""
    body = b'{"v":2,"new":[1,{"x":"\xc3\xa9"}]}'

    assert body == dump(parse(body))


# --- limits ------------------------------------------------------------------------------


def test_a_job_over_the_size_limit_is_refused() -> None:
    """Writing and reading have the same limit, in bytes of the whole body, and both can be moved."""
    room = MAX_BYTES - len(encode(job(args=("",))))
    exact = job(args=("x" * room,))
    over = job(args=("x" * (room + 1),))

    assert exact == decode(seal(exact))
    with pytest.raises(PayloadTooLarge, match="takes 1,048,577 bytes, over the limit of 1,048,576"):
        encode(over)
    with pytest.raises(Undecodable, match="over the limit"):
        decode(seal(over, max_bytes=2 * MAX_BYTES))
    assert over == decode(seal(over, max_bytes=2 * MAX_BYTES), max_bytes=2 * MAX_BYTES)


def test_size_is_counted_in_bytes() -> None:
    """A text of few characters can be of many bytes."""
    with pytest.raises(PayloadTooLarge):
        encode(job(args=("é" * 60,)), max_bytes=180)


def test_a_job_over_the_depth_limit_is_refused() -> None:
    """The job's object is one level and ``args`` another; a value that contains itself is too deep."""
    exact = job(args=tuple(nested(MAX_DEPTH - 1)))
    endless: list[Any] = []
    endless.append(endless)

    assert exact == decode(seal(exact))
    for deep in (nested(MAX_DEPTH), nested(5000), endless):
        with pytest.raises(PayloadTooLarge, match="nested deeper than 64 levels"):
            encode(job(args=tuple(deep)))


def test_many_brackets_are_not_depth() -> None:
    """A long flat list is fine, and so are brackets inside text."""
    flat = job(args=([], {}, *[[1]] * 200, "[" * 200))

    assert flat == decode(seal(flat))


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", object(), {1, 2}, b"x"])
def test_what_is_not_json_is_not_written(value: object) -> None:
    """A hand-made job with such a value is a ValueError that names the job's function."""
    with pytest.raises(ValueError, match="job j of app:f is not JSON"):
        encode(job(args=(value,)))


def test_the_envelope_decides_which_job_it_is() -> None:
    """A body under another id is refused; one moved to another known queue is not."""
    with pytest.raises(Undecodable, match="not the envelope's 'other'"):
        decode(Envelope("other", "q", encode(job())))
    assert "q" == decode(Envelope("j", "elsewhere", encode(job()))).queue


def test_errors_do_not_show_arguments() -> None:
    """The error of a body that breaks inside its arguments names no value of theirs."""
    for body in (
        b'{"v":1,"args":["hunter2"',
        b'{"v":1,"args":["hunter2"],"kwargs":7,"id":"j","fn":"a:b","queue":"q","enqueued_at":1}',
        b'{"v":1,"kwargs":{"hunter2":1,"hunter2":2}}',
    ):
        with pytest.raises(Undecodable) as caught:
            decode(Envelope("j", "q", body))

        assert "hunter2" not in str(caught.value)


# --- hostile bytes -----------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_random_bytes_are_never_a_surprise(body: bytes) -> None:
    """Whatever the bytes, the outcome is a job or `Undecodable`."""
    with suppress(Undecodable):
        decode(Envelope("j", "q", body))


@given(
    st.sampled_from(["v", "id", "fn", "args", "kwargs", "queue", "enqueued_at", "group", "attempt"])
    | st.sampled_from(["crashes", "suspicions", "timeout", "failure", "meta", "deferred_since"])
    | texts,
    values | st.sampled_from([-1, 2**31, 1e12, 10**30, "a:b", "no spaces", "q\n", {}, [], True]),
)
def test_a_wrong_field_is_refused_and_a_right_one_survives(name: str, value: Any) -> None:
    """What is read fits the schema and can be written, read and acted on; the rest is refused."""
    fields = json.loads(encode(job())) | {name: value}

    try:
        found = decode(Envelope("j", "q", json.dumps(fields).encode()))
    except Undecodable:
        return

    assert SCHEMA.is_valid(fields) or name == "queue"
    assert found == decode(seal(found))
    time.gmtime(found.enqueued_at)
    time.gmtime(found.deferred_since or 0)
    assert 0 < found.enqueued_at + (found.timeout or 1.0) + found.attempt < math.inf


def test_mutated_bodies_are_jobs_or_undecodable() -> None:
    """Flipped, cut, doubled and swapped bytes of real bodies never raise anything else."""
    chance = random.Random(20240229)
    bodies = [body_of(p.values[0]) for p in vectors("valid")]
    outcomes = {"job": 0, "undecodable": 0}
    for _ in range(20_000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randint(1, 2)):
            mutate(body, chance)
        try:
            found = decode(Envelope("018c5b9e-7a1c-7000-8000-00000000002a", "default", bytes(body)))
        except Undecodable:
            outcomes["undecodable"] += 1
        else:
            outcomes["job"] += 1
            assert found == decode(seal(found))

    assert 1000 < outcomes["job"]
    assert 1000 < outcomes["undecodable"]


def mutate(body: bytearray, chance: random.Random) -> None:
    """Change *body* a little, in one of several ways."""
    start = chance.randrange(len(body) + 1)
    stop = min(len(body), start + chance.randint(0, 8))
    match chance.randrange(5):
        case 0:
            body[start:stop] = chance.randbytes(stop - start)
        case 1:
            del body[start:stop]
        case 2:
            body[start:start] = body[start:stop]
        case 3:
            body[start:stop] = chance.choice(
                [b"null", b"1e999", b"[", b"}", b'"\\ud800"', b"-1", b'"']
            )
        case _:
            body[start:stop] = body[start:stop].swapcase()


# --- ids and names -----------------------------------------------------------------------


def test_ids_are_uuids_of_version_7_in_order() -> None:
    """Ids of one process sort as they were made, and hold the time in milliseconds."""
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000

    assert sorted(set(ids)) == ids
    assert {(7, uuid.RFC_4122)} == {(uuid.UUID(i).version, uuid.UUID(i).variant) for i in ids}
    assert before <= uuid.UUID(ids[0]).int >> 80
    # The counter may run ahead of the clock by as much as it was asked faster than 4096 per ms.
    assert uuid.UUID(ids[-1]).int >> 80 <= after + 3


def test_ids_made_by_the_hundred_are_like_others() -> None:
    """Ids for the jobs of one call are in order among themselves and with those made one by one."""
    many, other = new_ids(), new_ids()
    ids = [
        make() for _ in range(1_000) for make in (lambda: next(many), new_id, lambda: next(other))
    ]

    assert sorted(set(ids)) == ids
    assert 3_000 == len({i[-16:] for i in ids})
    assert {(7, uuid.RFC_4122)} == {(uuid.UUID(i).version, uuid.UUID(i).variant) for i in ids}


def test_chance_is_not_kept_for_a_later_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call asks the system for its own, so a copy of the process shares none of it."""
    asked: list[int] = []
    real = os.urandom
    monkeypatch.setattr(_ids.os, "urandom", lambda size: asked.append(size) or real(size))
    next(new_ids())
    next(new_ids())

    assert 2 == len(asked)


def test_ids_stay_in_order_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock set back does not make an id sort before an earlier one."""
    first = new_id()
    monkeypatch.setattr(_ids.time, "time_ns", lambda: 0)

    assert first < new_id() < new_id()


def test_ids_of_many_threads_differ() -> None:
    """No two callers get the same."""
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([new_id() for _ in range(500)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4000 == len(set(made))


def test_ids_can_be_made_after_a_fork_in_the_middle_of_making_one() -> None:
    """A child forked while another thread held the lock makes its own ids at once."""
    read, write = os.pipe()
    with _ids._id_lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)  # a child that waits for the lock ends, and the pipe is empty
            os.write(write, new_id().encode())
            os._exit(0)
    os.close(write)
    child = os.read(read, 100).decode()
    os.close(read)

    assert (pid, 0) == os.waitpid(pid, 0)
    assert child != new_id()
    assert 7 == uuid.UUID(child).version


@pytest.mark.parametrize("name", ["default", "a", "_x", "9.a:b-c", "q" * 100])
def test_a_name_for_a_queue(name: str) -> None:
    """Letters, digits and a few signs, up to 100."""
    assert name == check_queue(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "é", "a\n", "q" * 101, None, 5, b"a"])
def test_no_name_for_a_queue(name: Any) -> None:
    """The error shows the name and says what one may be."""
    with pytest.raises(ConfigError, match="cannot name a queue: use 1 to 100"):
        check_queue(name)
