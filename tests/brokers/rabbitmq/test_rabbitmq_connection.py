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
        self._takers, self._frame_buffer, self.bytes_received = {}, b"", 0
        self.seen: list[Any] = []
        self.expect(CHANNEL, self.seen.extend)

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


@given(st.lists(st.tuples(jobs, st.booleans()), max_size=8), st.integers(1, 300))
def test_jobs_are_read_in_any_pieces(mixed: list[tuple[Pushed, bool]], size: int) -> None:
    """Jobs of one frame are handed on as they are, all else is the driver's, all in its order."""
    reader = Reader()
    expected: list[Any] = []
    data = b""
    for job, foreign in mixed:
        frames = written(job, FOREIGN if foreign else CHANNEL)
        data += b"".join(frames)
        quick = not foreign and len(job.body) <= LIMIT
        expected += [job] if quick else [Method, Header, *[Body] * (len(frames) - 2)]
    for start in range(0, len(data), size):
        reader.read(data[start : start + size])

    assert expected == reader.seen
    assert len(data) == reader.bytes_received


def test_a_frame_without_its_mark_is_the_drivers_to_judge() -> None:
    """Bytes that went wrong on their way end the connection as ever; no job is made of them."""
    reader = Reader()
    data = b"".join(written(Pushed(1, False, "job", None, b"{}"), CHANNEL))
    with pytest.raises(InvalidFrameError):
        reader.read(data[:-1] + b"\x00")

    assert Pushed not in [type(seen) for seen in reader.seen]
