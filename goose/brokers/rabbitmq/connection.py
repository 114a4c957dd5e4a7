"""The driver's connection, made quicker at the two things that happen for every job.

**Reading.** The driver turns each job that is pushed into three frames, looked up, assembled and handed on
one by one, and for each of them copies all that is behind it in the buffer. So jobs on channels
where somebody `expect`s them are read straight from the bytes, and those that came in one piece
are handed over at once. Confirms are read the same way, for those who `await_confirms`. All else is the
driver's as ever, in the order of its arrival; so is a job in several frames, which is a long one.

**Reading in somebody's stead.** Who waits for what comes may be lent the socket, and reads from it until it
is taken back; the driver's loop does not look at it meanwhile.

**Writing.** The driver keeps what it is given until the loop has told it that the socket takes
more, and then sends it piece by piece. Here the socket is asked at once, and the driver gets
what is left.

Source: AMQP 0-9-1, section 4.2, says what the bytes are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pika
from pika.adapters.select_connection import SelectConnection
from pika.frame import decode_frame
from pika.spec import BasicProperties

from goose.brokers.rabbitmq.options import Options

_FRAME = struct.Struct(">BHI")  # type, channel, size of the payload
_HEAD = _FRAME.size
_DELIVERY = struct.Struct(">QB")  # tag, and whether it is a repeated one, or means all before it
_CONTENT = struct.Struct(">HHQH")  # class, weight, body size, flags
_METHOD = 1
_MARK = 0xCE
"""The last byte of a frame."""
_DELIVER = b"\x00\x3c\x00\x3c"
_ACK = b"\x00\x3c\x00\x50"
READ = 1 << 16
"""Bytes taken from the socket at a time."""
_PROTOCOL = b"AMQP"
_PLAIN = BasicProperties.FLAG_DELIVERY_MODE | BasicProperties.FLAG_MESSAGE_ID


class Pushed(NamedTuple):
    """A job as the server pushed it."""

    tag: int
    redelivered: bool
    id: str
    headers: dict[str, Any] | None
    body: bytes


class _Incomplete(Exception):
    """Its bytes are not all there yet."""


Take = Callable[[list[Pushed]], None]
Confirm = Callable[[int, bool], None]
"""Told the number of a message that is stored, and whether all before it are, too."""


class Connection(SelectConnection):  # type: ignore[misc]  # to mypy the driver has no types
    """The driver's connection. For who deals with it at the moment only: see `driving`."""

    _frame_buffer: bytes
    """What came and is not a whole frame yet."""
    _transport: Any

    def __init__(self, *args: Any, **more: Any) -> None:
        self._takers: dict[int, Take] = {}
        self._confirms: dict[int, Confirm] = {}
        super().__init__(*args, **more)

    def expect(self, channel: int, take: Take) -> None:
        """Have *take* called with what is pushed on that channel from now on."""
        self._takers[channel] = take

    def await_confirms(self, channel: int, confirm: Confirm) -> None:
        """Have *confirm* told what the server has stored of what is published on that channel from now on."""
        self._confirms[channel] = confirm

    def leave(self, channel: int) -> None:
        """Leave what comes on that channel to the driver again."""
        self._takers.pop(channel, None)
        self._confirms.pop(channel, None)

    def lend(self) -> int:
        """Return the socket to wait for, at which the loop does not look any more; -1 if it cannot be had."""
        transport = self._transport
        # What is encrypted may be here already, and a writer has the loop look at the socket in any case.
        if self.params.ssl_options or not self._is_alive() or transport.get_write_buffer_size():
            return -1
        source: int = transport._sock.fileno()  # noqa: SLF001
        self.ioloop.update_handler(source, 0)
        return source

    def read(self) -> None:
        """Deal with what has come, if anything has."""
        if not self._is_alive():
            return
        transport = self._transport
        try:
            data = transport._sock.recv(READ)  # noqa: SLF001 - there is no public way, nor below
        except BlockingIOError:
            return
        except OSError as error:
            transport._initiate_abort(error)  # noqa: SLF001
            return
        if data:
            self._on_data_available(data)
        else:
            transport._on_socket_readable()  # noqa: SLF001 - which reads that it has ended, once more

    def take_back(self) -> None:
        """Have the loop look at the socket again."""
        if self._is_alive() and not self._transport.get_write_buffer_size():
            self.ioloop.update_handler(self._transport._sock.fileno(), self.ioloop.READ)  # noqa: SLF001

    def _is_alive(self) -> bool:
        transport = self._transport
        return transport is not None and transport._state == transport._STATE_ACTIVE  # noqa: SLF001

    def _proto_connection_made(self, transport: Any) -> None:
        # The driver would read 4 KiB, which is a dozen jobs.
        transport._MAX_RECV_BYTES = READ  # noqa: SLF001 - there is no public way
        super()._proto_connection_made(transport)  # pyright: ignore[reportAttributeAccessIssue]

    def _adapter_emit_data(self, data: bytes) -> None:
        transport = self._transport
        # TLS may have to read before it can write: that is the driver's business.
        if not self.params.ssl_options and transport and not transport.get_write_buffer_size():
            # Full, or broken: the driver will find out which.
            with contextlib.suppress(OSError):
                data = data[transport._sock.send(data) :]  # noqa: SLF001 - there is no public way
        if data:
            super()._adapter_emit_data(data)  # pyright: ignore[reportAttributeAccessIssue]

    def _on_data_available(self, data_in: bytes) -> None:
        self.bytes_received += len(data_in)
        data = self._frame_buffer + data_in
        at = 0
        row: list[Pushed] = []
        channel = 0
        while (stop := _end(data, at)) <= len(data):
            if data[at] == _METHOD and data.startswith(_DELIVER, at + _HEAD):
                number = _FRAME.unpack_from(data, at)[1]
                if number != channel:
                    self._hand_over(channel, row)
                    channel, row = number, []
                if number in self._takers:
                    try:
                        past = _read(data, at, stop, row)
                    except _Incomplete:
                        break
                    if past:
                        at = past
                        continue
            self._hand_over(channel, row)
            row = []
            if data.startswith(_ACK, at + _HEAD) and self._confirmed(data, at, stop):
                at = stop
                continue
            frame = decode_frame(data[at:stop])[1]
            at = stop
            if frame is not None:
                self._process_frame(frame)  # pyright: ignore[reportAttributeAccessIssue]
        self._hand_over(channel, row)
        self._frame_buffer = data[at:]

    def _confirmed(self, data: bytes, at: int, stop: int) -> bool:
        """Pass a confirm on; return False if it is the driver's to read."""
        kind, channel, _ = _FRAME.unpack_from(data, at)
        confirm = self._confirms.get(channel)
        if confirm is None or kind != _METHOD or data[stop - 1] != _MARK:
            return False
        tag, flags = _DELIVERY.unpack_from(data, at + _HEAD + len(_ACK))
        confirm(tag, bool(flags & 1))
        return True

    def _hand_over(self, channel: int, row: list[Pushed]) -> None:
        if row:
            self._takers[channel](row)


def _end(data: bytes, at: int) -> int:
    """Return where the frame at *at* ends, which may be beyond the data."""
    if data.startswith(_PROTOCOL, at):
        return at + 8
    if len(data) - at < _HEAD:
        return len(data) + 1
    size: int = _FRAME.unpack_from(data, at)[2]
    return at + _HEAD + size + 1


def _read(data: bytes, at: int, stop: int, row: list[Pushed]) -> int:
    """Append the job whose first frame is from *at* to *stop*; return where it ends.

    Returns:
        0 if it is not of the usual kind, and so the driver's to read.

    Raises:
        _Incomplete: It is not all there yet.
    """
    tag, again = _DELIVERY.unpack_from(data, at + _HEAD + 5 + data[at + _HEAD + 4])
    header = stop
    stop = _end(data, header)
    if stop > len(data):
        raise _Incomplete
    start = header + _HEAD
    _, _, size, flags = _CONTENT.unpack_from(data, start)
    body = b""
    past = stop
    if size:
        past = _end(data, stop)
        if len(data) - stop < _HEAD:
            raise _Incomplete
        if past - stop != _HEAD + size + 1:
            return 0  # in several frames
        if past > len(data):
            raise _Incomplete
        body = data[stop + _HEAD : past - 1]
    if data[past - 1] != _MARK:
        return 0  # it says so
    if flags == _PLAIN:
        start += _CONTENT.size + 1
        name = data[start + 1 : start + 1 + data[start]].decode("utf-8", "replace")
        row.append(Pushed(tag, bool(again & 1), name, None, body))
    else:
        properties: Any = BasicProperties()
        properties.decode(data[start + _CONTENT.size - 2 : stop - 1])
        row.append(
            Pushed(tag, bool(again & 1), properties.message_id or "", properties.headers, body)
        )
    return past


def parameters(options: Options, host: str, port: int, role: str) -> pika.ConnectionParameters:
    """Return how to connect to one of the hosts, once, for *role*."""
    return pika.ConnectionParameters(
        host,
        port,
        options.vhost,
        pika.PlainCredentials(options.username, options.password),
        heartbeat=options.heartbeat,
        socket_timeout=options.connect_timeout,
        stack_timeout=options.connect_timeout,
        connection_attempts=1,
        ssl_options=pika.SSLOptions(options.context(), host) if options.tls else None,
        client_properties={"connection_name": f"goose {role} {socket.gethostname()} {os.getpid()}"},
    )
