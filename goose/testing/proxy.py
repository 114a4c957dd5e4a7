"""A TCP proxy on loopback that breaks connections as a network does, while it runs.

A `Proxy` stands between clients and a server and passes bytes on until it is told otherwise.
Two kinds of trouble can be made, from any thread and at any moment:

* a *state*, which lasts until `Proxy.heal`: every byte late (`delay`), few bytes a second
  (`throttle`), nothing arrives though everything stays connected (`blackhole`), or nobody
  listens (`refuse`). What a blackhole holds back arrives once it is healed, as TCP sends it
  again: a request may reach the server long after its client gave up.
* a *cut*, which happens once: every connection now (`reset`, or `strand`, of which nobody is
  told), or the one that carries the n-th byte or k-th request from now on (`cut_after`,
  `cut_before_request`, `cut_before_reply`). After the latter the server has carried the
  request out and the client cannot know.

A proxy does not speak the server's protocol. It takes what arrives in one piece for one
request, or finds where requests end by the function it is given. `hits` counts what trouble
met: connections with a request under way that were cut, pieces that were held up, connections
that were refused. A test that made trouble and hit nothing has shown nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]
After = Literal["pass", "refuse"]

PIECE = 65_536
"""Bytes read at once."""
DRAIN = 5.0
"""Seconds the server gets to carry out what reached it before a cut."""


@dataclass(slots=True)
class _Cut:
    """A cut that waits for its moment."""

    kind: str
    left: int
    """Bytes or requests until it happens."""
    then: After


class _Link:
    """One client's connection and the one made for it to the server."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.from_client, self.to_client = client
        self.from_server, self.to_server = server
        self.asked = False
        """Whether a request is under way."""
        self.muted = False
        """Whether what the server says is thrown away."""
        self.stranded = False
        """Whether nothing passes any more, for ever."""
        self.ended = asyncio.Event()
        """Set when the server has ended its side."""

    def reset(self) -> None:
        for writer in (self.to_client, self.to_server):
            _reset(writer)

    def close(self) -> None:
        for writer in (self.to_client, self.to_server):
            writer.close()


class Proxy:
    """Passes bytes between clients and *server*; a context manager. Any thread may use it.

    Args:
        server: Host and port to connect to.
        split: Returns how many bytes the first whole request of what it is given has, 0 if
            that is not complete; None takes each piece that arrives for one request.
    """

    def __init__(
        self, server: tuple[str, int], *, split: Callable[[bytes], int] | None = None
    ) -> None:
        self._server = server
        self._split = split
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._rate = 0.0
        self._state = "pass"
        self._cut: _Cut | None = None
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        # Holds the port while nobody listens; a socket that does not listen refuses connections.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        """Where clients connect, on 127.0.0.1."""
        self.connections = 0
        """Connections accepted so far."""
        self.requests = 0
        """Requests that arrived so far."""
        self.hits: Counter[str] = Counter()
        """What trouble met, by the name of the method that made it."""
        self.partners: list[Proxy] = []
        """Others, before other servers of the same clients, that refuse when a cut makes this
        one refuse: as if the client had died."""

    # --- trouble -------------------------------------------------------------------------

    def heal(self) -> None:
        """Pass everything on again, also what was held back; forget a cut not made yet."""
        self._do(self._enter("pass"))

    def delay(self, seconds: float) -> None:
        """Pass each piece on so many *seconds* late."""
        self._do(self._enter("delay", delay=seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Pass on so many bytes a second, per connection and direction."""
        self._do(self._enter("throttle", rate=bytes_per_second))

    def blackhole(self) -> None:
        """Pass nothing on, and tell nobody; new connections are accepted and hang."""
        self._do(self._enter("blackhole"))

    def refuse(self) -> None:
        """Cut all connections and listen no more, as a server that is down."""
        self._do(self._enter("refuse"))

    def reset(self) -> int:
        """Cut all connections; return how many had a request under way."""
        return self._do(self._reset_all("reset"))

    def strand(self) -> int:
        """Pass nothing on any more over the connections there are, and tell nobody.

        So it looks when the other host, or a firewall between, has forgotten a connection: new
        ones work, and the old ones never end by themselves.

        Returns:
            How many had a request under way.
        """
        return self._do(self._strand_all())

    def cut_after(self, n: int, *, direction: Direction = "up", then: After = "pass") -> None:
        """Cut the connection that carries the *n*-th byte from now on, right behind it.

        Args:
            n: Bytes, at least 0; counted over all connections.
            direction: Towards the server ("up") or the client.
            then: "refuse" to be as after `refuse` from there on.
        """
        self._do(self._arm(_Cut(f"cut_after_{direction}", n, then)))

    def cut_before_request(self, k: int, *, then: After = "pass") -> None:
        """Cut the connection that brings the *k*-th request from now on; it does not arrive."""
        self._do(self._arm(_Cut("cut_before_request", k, then)))

    def cut_before_reply(self, k: int, *, then: After = "pass") -> None:
        """Cut the connection that brings the *k*-th request from now on, once it is carried out."""
        self._do(self._arm(_Cut("cut_before_reply", k, then)))

    @property
    def armed(self) -> bool:
        """Whether a cut waits for its moment."""
        return self._cut is not None

    @property
    def refusing(self) -> bool:
        """Whether nobody listens at the moment."""
        return self._state == "refuse"

    # --- life ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._enter("pass"))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def _do(self, step: Coroutine[Any, Any, T]) -> T:
        """Run *step* in the proxy's thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self.port))
            self._listener.listen(128)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it left before we looked
        self.connections += 1
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        self._unlisten()
        await self._reset_all("end")
        self._flowing.set()
        await asyncio.sleep(0)  # a task that never began could not close what it was given
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _enter(self, state: str, *, delay: float = 0.0, rate: float = 0.0) -> None:
        self._state, self._delay, self._rate = state, delay, rate
        if state == "refuse":
            self._unlisten()
            await self._reset_all("refuse")
        else:
            self._listen()
        if state == "blackhole":
            self._flowing.clear()
        else:
            self._flowing.set()
        if state == "pass":
            self._cut = None

    async def _arm(self, cut: _Cut) -> None:
        self._cut = cut

    async def _reset_all(self, kind: str) -> int:
        links, self._links = self._links, set()
        for link in links:
            self.hits[kind] += link.asked
            link.reset()
        return sum(link.asked for link in links)

    async def _strand_all(self) -> int:
        asked = sum(link.asked for link in self._links)
        for link in self._links:
            link.stranded = True
        self.hits["strand"] += asked
        return asked

    # --- connections ---------------------------------------------------------------------

    async def _serve(self, sock: socket.socket) -> None:
        """Carry one client's connection from its beginning to its end."""
        client = await asyncio.open_connection(sock=sock, limit=PIECE)
        try:
            await self._flow(None)
            server = await asyncio.open_connection(*self._server, limit=PIECE)
            link = _Link(client, server)
            if self._state == "refuse":
                return link.reset()
            self._links.add(link)
            try:
                await self._carry(link)
            finally:
                self._links.discard(link)
                link.close()
        except (OSError, asyncio.CancelledError):
            _reset(client[1])  # the server is down, or the proxy ends
        return None

    async def _carry(self, link: _Link) -> None:
        """Carry both ways until one side has ended."""
        ways = [asyncio.create_task(self._up(link)), asyncio.create_task(self._down(link))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self, link: _Link) -> None:
        async for request in self._requests(link):
            self.requests += 1
            link.asked = True
            await self._flow(link, len(request))
            cut = self._due("cut_before_request", 1) or self._due("cut_before_reply", 1)
            if cut is not None:
                if cut.kind == "cut_before_reply":
                    link.to_server.write(request)
                await self._drained(link)
                return await self._make(cut, link)
            part = self._until("cut_after_up", request)
            link.to_server.write(part)
            await link.to_server.drain()
            if (cut := self._due("cut_after_up", len(request))) is not None:
                await self._drained(link)
                return await self._make(cut, link)
        return None

    async def _down(self, link: _Link) -> None:
        while piece := await link.from_server.read(PIECE):
            if link.muted:
                continue
            await self._flow(link, len(piece))
            part = self._until("cut_after_down", piece)
            link.to_client.write(part)
            await link.to_client.drain()
            if (cut := self._due("cut_after_down", len(piece))) is not None:
                return await self._make(cut, link)
            link.asked = False
        link.ended.set()
        if link.muted:
            await asyncio.Event().wait()  # the other way makes the cut, and cancels this one
        return None

    async def _requests(self, link: _Link) -> AsyncIterator[bytes]:
        """Yield what the client sends, request by request."""
        rest = b""
        while piece := await link.from_client.read(PIECE):
            if self._split is None:
                yield piece
                continue
            rest += piece
            while size := self._split(rest):
                request, rest = rest[:size], rest[size:]
                yield request

    async def _flow(self, link: _Link | None, size: int = 0) -> None:
        """Wait as long as the state says for a piece of *size* bytes."""
        if self._state in ("delay", "throttle", "blackhole"):
            self.hits[self._state] += 1
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._rate:
            await asyncio.sleep(size / self._rate)
        await self._flowing.wait()
        if link is not None and link.stranded:
            await asyncio.Event().wait()  # until the proxy ends

    # --- cuts ------------------------------------------------------------------------------

    def _until(self, kind: str, piece: bytes) -> bytes:
        """Return as much of *piece* as goes before the cut of that *kind*."""
        cut = self._cut
        return piece if cut is None or cut.kind != kind else piece[: cut.left]

    def _due(self, kind: str, count: int) -> _Cut | None:
        """Count towards the cut of that *kind*, and return it if its moment has come."""
        cut = self._cut
        if cut is None or cut.kind != kind:
            return None
        cut.left -= count
        return cut if cut.left <= 0 else None

    async def _drained(self, link: _Link) -> None:
        """Let the server carry out what reached it: it reads to the end, and closes."""
        link.muted = True
        with contextlib.suppress(OSError, TimeoutError):
            await link.to_server.drain()
            link.to_server.write_eof()
            async with asyncio.timeout(DRAIN):
                await link.ended.wait()

    async def _make(self, cut: _Cut, link: _Link) -> None:
        self.hits[cut.kind] += 1
        self._cut = None
        link.reset()
        if cut.then == "refuse":
            await self._enter("refuse")
            for partner in self.partners:
                await asyncio.to_thread(partner.refuse)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST: what was not sent yet is thrown away."""
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
