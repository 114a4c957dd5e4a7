"""What the quick reader makes of the server's bytes: the same as the driver, in any pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.exceptions import InvalidFrameError
from pika.frame import Body, Header, Method

from goose.brokers.rabbitmq.connection import Connection, Pushed

CHANNEL, FOREIGN = 3, 4
LIMIT = 40
"""Bytes of a body in one frame."""


class Reader(Connection):
    """A connection without a server: notes what it hands on, and what is left to the driver."""

    def __init__(self) -> None:
        self._takers, self._confirms, self._frame_buffer, self.bytes_received = {}, {}, b"", 0
        self.seen: list[Any] = []
        self.expect(CHANNEL, self.seen.extend)
        self.await_confirms(CHANNEL, lambda *confirm: self.seen.append(confirm))

    def _process_frame(self, frame_value: Any) -> None:
        self.seen.append(type(frame_value))

    def read(self, data: bytes) -> None:
        """Take what a socket gave."""
        self._on_data_available(data)


jobs = st.builds(
    Pushed,
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.text(max_size=40),
    st.none() | st.just({"x-delivery-count": 3}),
    st.binary(max_size=100) | st.just(b"\x00\x3c\x00\x3c" * 20),
)


def written(job: Pushed, channel: int) -> list[bytes]:
    """Return the frames of *job* as a server writes them."""
    deliver = spec.Basic.Deliver("ctag1", job.tag, job.redelivered, "", "goose/default/q/mail")
    properties = BasicProperties(delivery_mode=2, message_id=job.id, headers=job.headers)
    frames: list[Any] = [Method(channel, deliver), Header(channel, len(job.body), properties)]
    starts = range(0, len(job.body), LIMIT)
    frames += [Body(channel, job.body[start : start + LIMIT]) for start in starts]
    return [frame.marshal() for frame in frames]


confirms = st.tuples(st.integers(0, 2**64 - 1), st.booleans())


@given(st.lists(st.tuples(jobs | confirms, st.booleans()), max_size=8), st.integers(1, 300))
def test_jobs_and_confirms_are_read_in_any_pieces(
    mixed: list[tuple[Pushed | tuple[int, bool], bool]], size: int
) -> None:
    """Jobs of one frame, and confirms, are handed on as they are, all else is the driver's, in its order."""
    reader = Reader()
    expected: list[Any] = []
    data = b""
    for job, foreign in mixed:
        if not isinstance(job, Pushed):
            data += Method(FOREIGN if foreign else CHANNEL, spec.Basic.Ack(*job)).marshal()
            expected += [Method] if foreign else [job]
            continue
        frames = written(job, FOREIGN if foreign else CHANNEL)
        data += b"".join(frames)
        quick = not foreign and len(job.body) <= LIMIT
        expected += [job] if quick else [Method, Header, *[Body] * (len(frames) - 2)]
    for start in range(0, len(data), size):
        reader.read(data[start : start + size])

    assert expected == reader.seen
    assert len(data) == reader.bytes_received


@pytest.mark.parametrize(
    "data",
    [
        b"".join(written(Pushed(1, False, "job", None, b"{}"), CHANNEL)),
        Method(CHANNEL, spec.Basic.Ack(1, True)).marshal(),
    ],
    ids=["a job", "a confirm"],
)
def test_a_frame_without_its_mark_is_the_drivers_to_judge(data: bytes) -> None:
    """Bytes that went wrong on their way end the connection as ever; nothing is made of them."""
    reader = Reader()
    with pytest.raises(InvalidFrameError):
        reader.read(data[:-1] + b"\x00")

    assert {Method, Header} >= {*reader.seen}


def test_a_refusal_is_the_drivers() -> None:
    """Only confirms are read on the short way; who is refused hears it as from the driver."""
    reader = Reader()
    reader.read(Method(CHANNEL, spec.Basic.Nack(1, False)).marshal())

    assert [Method] == reader.seen
