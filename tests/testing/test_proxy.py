"""The TCP proxy makes the trouble it names, and counts what it met."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from goose.testing.proxy import Proxy


class Echo(socketserver.ThreadingTCPServer):
    """Answers each line with itself, and remembers what it got."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: Echo

    def handle(self) -> None:
        with suppress(OSError):
            for line in self.rfile:
                self.server.got.append(line)
                self.wfile.write(line)


def line_length(data: bytes) -> int:
    return data.find(b"\n") + 1


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as echo:
        thread = threading.Thread(target=echo.serve_forever, args=(0.01,))
        thread.start()
        yield echo
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Echo) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", server.server_address[1]), split=line_length) as made:
        yield made


def connected(proxy: Proxy) -> closing[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def ask(client: socket.socket, line: bytes = b"hello\n") -> bytes:
    client.sendall(line)
    return client.recv(100_000)


def test_bytes_pass_and_connections_are_counted(proxy: Proxy) -> None:
    """Without trouble a client cannot tell the proxy from the server."""
    with connected(proxy) as one, connected(proxy) as two:
        replies = [ask(one), ask(two), ask(one, b"again\n")]

    assert [b"hello\n", b"hello\n", b"again\n"] == replies
    assert (2, 3, 0) == (proxy.connections, proxy.requests, proxy.hits.total())


def test_a_delay_holds_each_piece_and_ends_with_heal(proxy: Proxy) -> None:
    """Request and reply are each late by the delay; after heal they are not."""
    with connected(proxy) as client:
        ask(client)
        proxy.delay(0.1)
        began = time.monotonic()
        ask(client)
        late = time.monotonic() - began
        proxy.heal()
        began = time.monotonic()
        ask(client)

    assert late >= 0.2
    assert time.monotonic() - began < 0.1
    assert proxy.hits["delay"] == 2


def test_throttle_passes_so_many_bytes_a_second(proxy: Proxy) -> None:
    """A thousand bytes at ten thousand a second need a tenth of one, each way."""
    with connected(proxy) as client:
        proxy.throttle(10_000)
        began = time.monotonic()
        ask(client, b"x" * 999 + b"\n")

    assert time.monotonic() - began >= 0.2
    assert proxy.hits["throttle"] > 0


def test_reset_cuts_at_once_and_counts_requests_under_way(
    proxy: Proxy, server: Echo, wait_until: Callable[..., None]
) -> None:
    """Live connections end by a reset; only those that waited for a reply count as hit."""
    with connected(proxy) as idle, connected(proxy) as busy:
        ask(idle)
        proxy.delay(30)
        busy.sendall(b"question\n")
        wait_until(lambda: proxy.hits["delay"] == 1)
        busy_ones = proxy.reset()
        with pytest.raises(ConnectionResetError):
            busy.recv(10)
        with pytest.raises(ConnectionResetError):
            idle.recv(10)
        proxy.heal()
        with connected(proxy) as fresh:
            assert ask(fresh) == b"hello\n"

    assert (1, 1) == (busy_ones, proxy.hits["reset"])
    assert b"question\n" not in server.got


def test_a_blackhole_says_nothing_and_delivers_late(
    proxy: Proxy, server: Echo, wait_until: Callable[..., None]
) -> None:
    """Nothing arrives and nobody is told; healed, the request arrives after all."""
    with connected(proxy) as client:
        ask(client)
        proxy.blackhole()
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            ask(client, b"held\n")
        with connected(proxy) as fresh:  # accepted, and hangs
            fresh.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ask(fresh, b"fresh\n")
        unseen = list(server.got)
        proxy.heal()
        client.settimeout(5)
        late = client.recv(100)

    assert [b"hello\n"] == unseen
    assert b"held\n" == late
    assert proxy.hits["blackhole"] >= 1


def test_stranded_connections_stay_silent_while_new_ones_work(
    proxy: Proxy, server: Echo, wait_until: Callable[..., None]
) -> None:
    """An old connection hangs for ever, also one that waits for its reply; a fresh one does not."""
    with connected(proxy) as idle, connected(proxy) as busy:
        ask(idle)
        proxy.delay(0.1)
        busy.sendall(b"question\n")
        wait_until(lambda: proxy.requests == 2)
        under_way = proxy.strand()
        proxy.heal()
        for client in (idle, busy):
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                ask(client, b"lost\n")
        with connected(proxy) as fresh:
            assert ask(fresh) == b"hello\n"

    assert (1, 1) == (under_way, proxy.hits["strand"])
    assert b"lost\n" not in server.got


def test_refuse_is_a_server_that_is_down(proxy: Proxy) -> None:
    """Connections end, new ones are refused at once, and the port is the same after it."""
    port = proxy.port
    with connected(proxy) as client:
        ask(client)
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
        proxy.heal()
        with connected(proxy) as fresh:
            assert ask(fresh) == b"hello\n"


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_cut_before_a_request_keeps_it_from_the_server(
    proxy: Proxy, server: Echo, k: int
) -> None:
    """Of requests sent in one piece only those before the k-th arrive."""
    with connected(proxy) as client:
        proxy.cut_before_request(k)
        client.sendall(b"1\n2\n3\n")
        with pytest.raises(ConnectionResetError):
            while client.recv(100):
                pass

    assert [b"1\n", b"2\n"][: k - 1] == server.got
    assert (1, False) == (proxy.hits["cut_before_request"], proxy.armed)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_cut_before_a_reply_lets_the_server_work(proxy: Proxy, server: Echo, k: int) -> None:
    """The k-th request is carried out, those behind it are not, and its reply is lost."""
    with connected(proxy) as client:
        proxy.cut_before_reply(k)
        client.sendall(b"1\n2\n3\n")
        seen = b""
        with pytest.raises(ConnectionResetError):
            while piece := client.recv(100):
                seen += piece

    assert [b"1\n", b"2\n", b"3\n"][:k] == server.got
    assert b"%d\n" % k not in seen
    assert (1, False) == (proxy.hits["cut_before_reply"], proxy.armed)


def test_a_cut_after_bytes_tears_a_request(proxy: Proxy, server: Echo) -> None:
    """Exactly so many bytes reach the server."""
    with connected(proxy) as client:
        proxy.cut_after(9)
        client.sendall(b"first\nsecond\n")
        with pytest.raises(ConnectionResetError):
            while client.recv(100):
                pass

    assert [b"first\n", b"sec"] == server.got
    assert proxy.hits["cut_after_up"] == 1


def test_a_cut_after_bytes_tears_a_reply(proxy: Proxy) -> None:
    """The client gets no more than so many bytes."""
    with connected(proxy) as client:
        proxy.cut_after(3, direction="down")
        client.sendall(b"hello\n")
        seen = b""
        with pytest.raises(ConnectionResetError):
            while piece := client.recv(100):
                seen += piece

    assert b"hel".startswith(seen)
    assert proxy.hits["cut_after_down"] == 1


def test_a_cut_may_leave_the_server_down(proxy: Proxy) -> None:
    """With then="refuse" nothing gets through behind the cut, until heal."""
    with connected(proxy) as client:
        proxy.cut_before_reply(1, then="refuse")
        client.sendall(b"1\n")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    proxy.heal()
    with connected(proxy) as fresh:
        assert ask(fresh) == b"hello\n"


def test_partners_refuse_together(proxy: Proxy, server: Echo) -> None:
    """A cut that leaves one proxy refusing does so to its partners."""
    with Proxy(("127.0.0.1", server.server_address[1])) as other:
        proxy.partners.append(other)
        with connected(other) as elsewhere, connected(proxy) as client:
            ask(elsewhere)
            proxy.cut_before_request(1, then="refuse")
            client.sendall(b"1\n")
            with pytest.raises(ConnectionResetError):
                client.recv(10)
            with pytest.raises(ConnectionResetError):
                elsewhere.recv(10)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other.port), timeout=5)


def test_a_server_that_is_down_ends_the_clients_connection() -> None:
    """Nobody behind the proxy looks like a connection that ends at once."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        # The end may come while the client still greets.
        with (
            Proxy(("127.0.0.1", unused.getsockname()[1])) as proxy,
            pytest.raises((ConnectionResetError, BrokenPipeError)),
            connected(proxy) as client,
        ):
            client.recv(10)
