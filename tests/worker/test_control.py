"""The line between a supervisor and its children."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from goose.worker.control import (
    Bootstrap,
    Channel,
    Count,
    Empty,
    Fatal,
    Leaving,
    Message,
    NewSession,
    Ordered,
    Ready,
    Refused,
    Stop,
    Stopped,
    decode,
    encode,
)

Line = tuple[Channel, Channel]


@pytest.fixture
def line() -> Iterator[Line]:
    """Both ends of a line."""
    ends = Channel.pair()
    yield ends
    for end in ends:
        end.close()


BOOTSTRAP = Bootstrap(
    supervisor=1, broker="memory://", modules=["app"], config={"ttl": 30.0}, session="s", epoch=2
)


@pytest.mark.parametrize(
    "message",
    [
        Stop(1.5),
        Stop(math.inf),
        Stop(0.5, make_way=True),
        NewSession("id", 3),
        Ready(),
        Refused(),
        Leaving("max jobs"),
        Empty(),
        Ordered(3, "debug"),
        Ordered(None, None),
        Stopped(clean=False),
        Fatal(3, "no module\nnamed 'ä'"),
    ],
)
def test_a_message_survives_the_line(message: Message) -> None:
    """Each message comes out as it went in, on one line."""
    encoded = encode(message)

    assert message == decode(encoded)
    assert encoded.endswith(b"\n")
    assert 1 == encoded.count(b"\n")


def test_counts_survive_the_line() -> None:
    """Names, queues and numbers come back."""
    count = Count([("jobs.recovered", 2, {"queue": "mail"})], [("queue.oldest", 1.5, {})])
    read = decode(encode(count))

    assert isinstance(read, Count)
    assert [["jobs.recovered", 2, {"queue": "mail"}]] == list(read.increments)
    assert [["queue.oldest", 1.5, {}]] == list(read.gauges)


def test_a_bootstrap_survives_the_line() -> None:
    """Its sequences come back as lists; all else is the same."""
    read = decode(encode(BOOTSTRAP))

    assert isinstance(read, Bootstrap)
    assert "memory://" == read.broker
    assert ["app"] == list(read.modules)
    assert {"ttl": 30.0} == read.config


@pytest.mark.parametrize(
    "nonsense", [b"", b"x", b"[]", b"{}", b'{"kind":"Exit"}', b'{"kind":"Stop","grace":1,"x":2}']
)
def test_nonsense_is_no_message(nonsense: bytes) -> None:
    """What is not exactly a message is refused."""
    with pytest.raises(ValueError, match="not a control message"):
        decode(nonsense)


def test_messages_arrive_in_order_and_whole(line: Line) -> None:
    """Many at once, cut anywhere, nonsense between them left out."""
    one, other = line
    data = encode(Ready()) + b"nonsense\n" + encode(Fatal(3, "x" * 500))
    received: list[Message] = []
    for at in range(0, len(data), 7):
        one.socket.send(data[at : at + 7])
        received += other.receive()

    assert [Ready(), Fatal(3, "x" * 500)] == received
    assert not other.closed


def test_the_end_of_the_line_is_seen_after_the_last_message(line: Line) -> None:
    """What was sent before the end is still received."""
    one, other = line
    one.send(Stopped(clean=True))
    one.close()

    assert [Stopped(clean=True)] == other.receive(wait=5)
    assert other.closed
    assert [] == other.receive(wait=5)


def test_sending_to_nobody_is_no_error(line: Line) -> None:
    """A dead or deaf peer makes send say no; it neither raises nor blocks."""
    one, other = line
    deaf = [one.send(Fatal(1, "x" * 1000)) for _ in range(2000)]
    other.close()

    assert deaf[0]
    assert not deaf[-1]
    assert not one.send(Ready())


def test_receive_waits_for_a_message(line: Line) -> None:
    """It returns when something comes, long before its time is over."""
    one, other = line
    timer = threading.Timer(0.02, one.send, [Ready()])
    timer.start()
    begun = time.monotonic()

    assert [Ready()] == other.receive(wait=30)
    assert time.monotonic() - begun < 10
    timer.join()


_ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import os, sys, time\\n"
    "from goose.worker.control import die_with\\n"
    "die_with(os.getppid())\\n"
    "print(os.getpid(), flush=True)\\n"
    "time.sleep(60)"])
child.wait()
"""


def test_a_child_dies_with_its_parent() -> None:
    """SIGKILL of the parent ends a child that sleeps and reads nothing."""
    with subprocess.Popen([sys.executable, "-c", _ORPHAN], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        begun = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        # The pipe ends when the last process that has it is gone.
        assert b"" == parent.stdout.read()
        assert time.monotonic() - begun < 30


def test_a_child_of_another_parent_ends_at_once() -> None:
    """If the parent was gone before the child could ask for its fate, the child ends itself."""
    code = "from goose.worker.control import die_with; die_with(1 << 30); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert (1, b"") == (done.returncode, done.stdout)


def test_a_message_that_fits_in_part_arrives_whole() -> None:
    """A reader that was slow gets every message whole; one that did not fit at all was refused."""
    ours, theirs = Channel.pair()
    message = Fatal(1, "x" * 10_000)
    sent = 0
    while ours.send(message):
        sent += 1
    received: list[Message] = []
    while len(received) < sent:
        found = theirs.receive()
        received += found
        if len(received) < sent and not found:
            assert ours.send(Ready())  # brings the rest of the last one
            sent += 1
    ours.close()
    theirs.close()

    assert [message] * (sent - received.count(Ready())) == [m for m in received if m != Ready()]
    assert len(received) == sent > 3
