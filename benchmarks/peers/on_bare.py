"""The server alone: messages that are bytes already, over one socket, and nothing else.

As many are unconfirmed at any moment as there are callers (1, 16, or a batch); whenever some are
confirmed, as many go out. There is no thread, no job and no driver, so what comes out is what
the server gives to anybody who waits for its confirms.
"""

import json
import os
import socket
import struct
import sys
import time
import uuid

import pika
import produce
from pika import spec
from pika.frame import Header, Method, decode_frame

QUEUE = "bench"
DEPTHS = {"single": 1, "together": produce.CALLERS, "bulk": produce.BATCH}
_ACK = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
"""How a frame on channel 1 begins that confirms; the number and a flag follow, and the end."""
_ACK_SIZE = len(_ACK) + 10


class Bare:
    """One channel of one connection."""

    def __init__(self, url: str) -> None:
        where = pika.URLParameters(url)
        self._socket = socket.create_connection((where.host, where.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._read = b""
        self._before = 0
        """Confirms of earlier calls."""
        self._expect(spec.Connection.Start)
        login = f"\0{where.credentials.username}\0{where.credentials.password}"
        self._say(0, spec.Connection.StartOk({}, "PLAIN", login.encode(), "en_US"))
        tune = self._expect(spec.Connection.Tune)
        self._say(0, spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        self._say(0, spec.Connection.Open(where.virtual_host))
        self._expect(spec.Connection.OpenOk)
        self._say(1, spec.Channel.Open())
        self._expect(spec.Channel.OpenOk)
        kind = "quorum" if os.environ["BENCH_QUORUM"] else "classic"
        declare = spec.Queue.Declare(queue=QUEUE, durable=True, arguments={"x-queue-type": kind})
        self._say(1, declare)
        self._expect(spec.Queue.DeclareOk)
        self._say(1, spec.Confirm.Select())
        self._expect(spec.Confirm.SelectOk)

    def _say(self, channel: int, method: spec.amqp_object.Method) -> None:
        self._socket.sendall(Method(channel, method).marshal())

    def _expect(self, kind: type) -> object:
        while True:
            size, frame = decode_frame(self._read)
            if frame is None:
                self._read += self._socket.recv(1 << 16)
                continue
            self._read = self._read[size:]
            if not isinstance(frame.method, kind):
                raise SystemExit(f"{kind.__name__} was expected, not {frame}")
            return frame.method

    def publish(self, message: bytes, count: int, depth: int) -> None:
        """Have *count* messages confirmed, *depth* at a time under way."""
        self._socket.sendall(message * min(depth, count))
        left, confirmed, seen = count - min(depth, count), 0, 0
        while confirmed < count:
            self._read += self._socket.recv(1 << 16)
            at = 0
            while len(self._read) - at >= _ACK_SIZE:
                if not self._read.startswith(_ACK, at):
                    raise SystemExit(f"not a confirm: {self._read[at : at + _ACK_SIZE]!r}")
                number, many = struct.unpack_from(">QB", self._read, at + len(_ACK))
                confirmed = number - self._before if many else confirmed + 1
                at += _ACK_SIZE
            self._read = self._read[at:]
            more = min(left, confirmed - seen)
            seen = confirmed
            if more:
                self._socket.sendall(message * more)
                left -= more
        self._before += count


def message() -> bytes:
    """Return a persistent message of the size of a small job, to the queue."""
    body = b"." * 175
    properties = pika.BasicProperties(delivery_mode=2, message_id=str(uuid.uuid4()))
    publish = Method(1, spec.Basic.Publish(routing_key=QUEUE, mandatory=True)).marshal()
    head = Header(1, len(body), properties).marshal()
    return publish + head + struct.pack(">BHI", 3, 1, len(body)) + body + b"\xce"


def main() -> None:
    """Do what the command line says, as `produce.main`."""
    how, count = sys.argv[1], int(sys.argv[3])
    bare = Bare(os.environ["BENCH_URL"])
    one = message()
    bare.publish(one, 1, 1)
    start = time.perf_counter()
    bare.publish(one, count - 1, DEPTHS[how])
    print(json.dumps({"rate": (count - 1) / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
