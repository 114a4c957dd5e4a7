"""StatsD: what goes over the wire, and that nothing about the network reaches a job."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from goose.errors import ConfigError
from goose.metrics import connect
from goose.metrics import statsd as module
from goose.metrics.base import DEAD, EXECUTION_TIME, PROCESSED, QUEUE_SIZE
from goose.metrics.statsd import DATAGRAM, StatsD

TAGS = {"queue": "mail", "function": "app.tasks:send_email"}


class Listener:
    """A UDP socket on a free port of this host."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)
        self.port = self.socket.getsockname()[1]

    def url(self, query: str = "", host: str = "127.0.0.1") -> str:
        return f"statsd://{host}:{self.port}?{query}"

    def datagram(self) -> bytes:
        return self.socket.recv(65536)

    def lines(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            found += self.datagram().decode().split("\n")
        return found


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.socket.close()


def sent(listener: Listener, statsd: StatsD, count: int = 1) -> list[str]:
    statsd.close()
    return listener.lines(count)


class TestLines:
    def test_the_plain_dialect_folds_tags_into_the_name(self, listener: Listener) -> None:
        """Constant values come first, then the measure, its tags in their order, others by name."""
        statsd = StatsD(listener.url("tags=env:prod,region:eu.west"))
        statsd.increment(PROCESSED, 2, {"zone": "z", **TAGS, "reason": "gave up"})

        assert [
            "goose.prod.eu_west.jobs.processed.mail.app_tasks_send_email.gave_up.z:2|c"
        ] == sent(listener, statsd)

    def test_a_missing_tag_keeps_its_place(self, listener: Listener) -> None:
        """A measure's tags have fixed places in the plain name; an unknown one's come by name."""
        statsd = StatsD(listener.url())
        statsd.increment(DEAD, 1, {"reason": "undecodable", "queue": "mail"})
        statsd.increment("own", 1, {"b": "2", "function": "f", "a": "1"})

        expected = ["goose.jobs.dead.mail.none.undecodable:1|c", "goose.own.f.1.2:1|c"]
        assert expected == sent(listener, statsd)

    def test_the_datadog_dialect_appends_tags(self, listener: Listener) -> None:
        """Tags follow the value, constant ones first, with characters Datadog keeps."""
        statsd = StatsD(listener.url("dialect=datadog&tags=env:prod&prefix=my.goose"))
        statsd.increment(PROCESSED, 1, {**TAGS, "reason": "a|b,c#d\ne"})

        assert [
            (
                "my.goose.jobs.processed:1|c|#env:prod,queue:mail,"
                "function:app.tasks:send_email,reason:a_b_c_d_e"
            )
        ] == sent(listener, statsd)

    def test_datadog_without_tags_has_no_suffix(self, listener: Listener) -> None:
        """A line without tags is a plain one."""
        statsd = StatsD(listener.url("dialect=datadog&prefix="))
        statsd.increment("sessions.lost", 1, {})

        assert ["sessions.lost:1|c"] == sent(listener, statsd)

    def test_the_influx_dialect_puts_tags_behind_the_name(self, listener: Listener) -> None:
        """Tags are part of the name, constant ones first, and nothing in them can end it."""
        statsd = StatsD(listener.url("dialect=influx&tags=env:prod"))
        statsd.timing(EXECUTION_TIME, 0.5, {**TAGS, "x": "a,b=c d:e|f"})

        assert [
            (
                "goose.job.execution_time,env=prod,queue=mail,"
                "function=app_tasks_send_email,x=a_b_c_d_e_f:500|ms"
            )
        ] == sent(listener, statsd)

    def test_a_rate_sends_a_part_and_says_which(self, listener: Listener) -> None:
        """Counts and times are sampled and marked, in the place each dialect wants; gauges are not."""
        for dialect, line in (
            ("plain", "goose.jobs.processed.mail.f:1|c|@0.25"),
            ("datadog", "goose.jobs.processed:1|c|@0.25|#queue:mail,function:f"),
            ("influx", "goose.jobs.processed,queue=mail,function=f:1|c|@0.25"),
        ):
            statsd = StatsD(listener.url(f"dialect={dialect}&rate=0.25"))
            for _ in range(400):
                statsd.increment(PROCESSED, 1, {"queue": "mail", "function": "f"})
                statsd.timing("t", 1, {})
            statsd.gauge("last", 1, {})
            accepted = statsd.statistics().lines
            lines = sent(listener, statsd, accepted)

            assert {line, "goose.t:1000|ms|@0.25", "goose.last:1|g"} == set(lines)
            assert 100 < accepted < 300

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.0012345, "1.234"), (2, "2000"), (1e-9, "0"), (90061.5, "90061500")]
    )
    def test_timings_are_milliseconds(self, listener: Listener, seconds: float, text: str) -> None:
        """A duration goes out in milliseconds, to the microsecond, without an exponent."""
        statsd = StatsD(listener.url())
        statsd.timing(EXECUTION_TIME, seconds, TAGS)

        assert [f"goose.job.execution_time.mail.app_tasks_send_email:{text}|ms"] == sent(
            listener, statsd
        )

    @pytest.mark.parametrize(
        ("value", "text"), [(100, "100"), (0.5, "0.5"), (1e-5, "0.00001"), (1e12, "1000000000000")]
    )
    def test_gauges_have_no_exponent(self, listener: Listener, value: float, text: str) -> None:
        """A gauge goes out as a plain decimal number."""
        statsd = StatsD(listener.url())
        statsd.gauge(QUEUE_SIZE, value, {"state": "ready", "queue": "q"})

        assert [f"goose.queue.size.q.ready:{text}|g"] == sent(listener, statsd)

    def test_a_negative_gauge_is_set_not_subtracted(self, listener: Listener) -> None:
        """The plain dialect reads a sign as a change, so 0 goes before it in one datagram."""
        statsd = StatsD(listener.url())
        statsd.gauge("g", -3, {})
        statsd.close()

        assert b"goose.g:0|g\ngoose.g:-3|g" == listener.datagram()

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_what_is_not_a_number_is_dropped(self, listener: Listener, value: float) -> None:
        """NaN and infinities are counted as dropped and not sent."""
        statsd = StatsD(listener.url())
        statsd.gauge("g", value, {})
        statsd.timing("t", value, {})
        statsd.increment("after", 1, {})

        assert ["goose.after:1|c"] == sent(listener, statsd)
        assert 2 == statsd.statistics().dropped

    def test_hostile_names_and_values_stay_one_line(self, listener: Listener) -> None:
        """Nothing in a name or tag can end the line or forge another one."""
        statsd = StatsD(listener.url())
        statsd.increment("a:1|c\nb", 1, {"queue": "x:9|c\ny" * 1000, "function": "", "é": "é"})

        (line,) = sent(listener, statsd)
        assert 1 == line.count(":") == line.count("|")
        assert line.startswith("goose.a_1_c_b.x_9_c_yx_9_c_y")
        assert line.endswith(".none._:1|c")

    def test_a_line_longer_than_a_datagram_is_dropped(self, listener: Listener) -> None:
        """What no datagram can carry is counted, not cut in the middle."""
        statsd = StatsD(listener.url())
        statsd.increment("long", 1, {str(n): "x" * 200 for n in range(8)})
        statsd.increment("short", 1, {})

        assert ["goose.short:1|c"] == sent(listener, statsd)
        assert 1 == statsd.statistics().dropped


class TestBuffering:
    def test_lines_share_datagrams_up_to_the_limit(self, listener: Listener) -> None:
        """A hundred lines need a few datagrams, none above 1,400 bytes, in order."""
        statsd = StatsD(listener.url())
        for number in range(100):
            statsd.increment(f"count.number{number:03}", 1, TAGS)
        statsd.close()

        datagrams = [listener.datagram() for _ in range(statsd.statistics().datagrams)]
        lines = b"\n".join(datagrams).decode().split("\n")
        assert [f"goose.count.number{n:03}" in line for n, line in enumerate(lines)] == [True] * 100
        assert max(map(len, datagrams)) <= DATAGRAM
        assert 4 <= len(datagrams) <= 6

    def test_a_lone_line_leaves_soon(self, listener: Listener) -> None:
        """Without a flush or close a line arrives after about a tenth of a second."""
        statsd = StatsD(listener.url())
        statsd.increment("alone", 1, {})
        began = time.monotonic()

        assert ["goose.alone:1|c"] == listener.lines(1)
        assert time.monotonic() - began < 2
        statsd.increment("again", 1, {})
        assert ["goose.again:1|c"] == listener.lines(1)
        statsd.close()

    def test_threads_lose_no_line(self, listener: Listener) -> None:
        """Lines of several threads arrive whole, each once."""
        statsd = StatsD(listener.url("dialect=datadog"))

        def count(thread: int) -> None:
            for number in range(250):
                statsd.increment("n", number, {"thread": str(thread)})

        threads = [threading.Thread(target=count, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = sorted(f"goose.n:{n}|c|#thread:{t}" for t in range(4) for n in range(250))
        assert expected == sorted(sent(listener, statsd, 1000))

    def test_close_twice_and_late_lines_do_no_harm(self, listener: Listener) -> None:
        """After close a line is dropped and counted; closing again does nothing."""
        statsd = StatsD(listener.url())
        statsd.increment("n", 1, {})
        statsd.close()
        statsd.increment("late", 1, {})
        statsd.close()

        assert ["goose.n:1|c"] == listener.lines(1)
        assert 1 == statsd.statistics().dropped

    def test_a_forked_child_sends_its_own_lines_only(self, listener: Listener) -> None:
        """The parent's buffered line is sent once, the child's by the child."""
        statsd = StatsD(listener.url())
        statsd.increment("warm", 1, {})
        assert ["goose.warm:1|c"] == listener.lines(1)
        with statsd._lock:
            # Forked while another thread holds the lock and a line is buffered.
            statsd._buffer.append(b"goose.parent:1|c")
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                statsd.increment("child", 1, {})
                statsd.close()
                os._exit(0)
        assert (child, 0) == os.waitpid(child, 0)
        assert ["goose.child:1|c"] == listener.lines(1)
        assert ["goose.parent:1|c"] == sent(listener, statsd)


class TestTrouble:
    def test_a_dead_port_costs_nothing(self, wait_until: Callable[..., None]) -> None:
        """With nobody listening no call raises or waits; what was refused is counted."""
        free = Listener()
        free.socket.close()
        statsd = StatsD(free.url())
        statsd.increment("n", 1, {})
        wait_until(lambda: statsd.statistics().datagrams)
        began = time.monotonic()
        for _ in range(5000):
            statsd.increment(PROCESSED, 1, TAGS)
        took = time.monotonic() - began
        statsd.close()

        assert took < 1
        assert statsd.statistics().errors > 0
        assert 5001 == statsd.statistics().lines

    def test_a_full_socket_drops_instead_of_waiting(self, listener: Listener) -> None:
        """EAGAIN from the network is a counted loss."""
        statsd = StatsD(listener.url())
        statsd.increment("n", 1, {})
        listener.lines(1)

        class Full:
            def send(self, data: bytes) -> int:
                raise BlockingIOError

            def close(self) -> None: ...

        assert statsd._socket is not None
        assert not statsd._socket.getblocking()
        statsd._socket.close()
        statsd._socket = Full()  # type: ignore[assignment]
        statsd.increment("n", 1, {})
        statsd.close()
        assert 1 == statsd.statistics().errors

    def test_a_hanging_resolver_holds_nobody_up(
        self, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While DNS hangs calls return at once and keep a bounded buffer, sent once it answers."""
        answer = threading.Event()
        real = socket.getaddrinfo

        def slow(*args: object, **kwargs: object) -> object:
            answer.wait(5)
            return real("127.0.0.1", listener.port, type=socket.SOCK_DGRAM)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        began = time.monotonic()
        statsd = StatsD(listener.url(host="statsd.example"))
        for _ in range(20_000):
            statsd.increment(PROCESSED, 1, TAGS)
        took = time.monotonic() - began

        assert took < 2
        assert 0 == statsd.statistics().datagrams
        assert module._WAITING == len(statsd._waiting)
        assert statsd.statistics().dropped > 0
        answer.set()
        assert "goose.jobs.processed.mail.app_tasks_send_email:1|c" in listener.lines(1)
        statsd.close()

    def test_close_does_not_wait_for_a_hanging_resolver(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Closing gives an unknown address half a second, then gives up its lines, counted."""
        answer = threading.Event()

        def slow(*args: object, **kwargs: object) -> object:
            answer.wait(5)
            raise socket.gaierror(-2, "no such name")

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        statsd = StatsD("statsd://statsd.example")
        statsd.increment("n", 1, {})
        began = time.monotonic()
        statsd.close()

        assert time.monotonic() - began < 2
        assert 1 == statsd.statistics().dropped
        answer.set()
        assert statsd._thread is not None
        statsd._thread.join(5)
        assert not statsd._thread.is_alive()
        assert not caplog.records

    def test_an_unknown_host_is_tried_again(
        self,
        listener: Listener,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A failed look-up is logged once and repeated until it works."""
        answers: list[object] = [socket.gaierror(-2, "no such name")] * 3
        real = socket.getaddrinfo

        def flaky(*args: object, **kwargs: object) -> object:
            if answers:
                raise answers.pop()  # type: ignore[misc]
            return real("127.0.0.1", listener.port, type=socket.SOCK_DGRAM)

        monkeypatch.setattr(socket, "getaddrinfo", flaky)
        monkeypatch.setattr(module, "RESOLVE_AGAIN", 0.01)
        statsd = StatsD(listener.url(host="statsd.example"))
        statsd.increment("n", 1, {})

        assert ["goose.n:1|c"] == listener.lines(1)
        assert 1 == caplog.text.count("until it is there")
        statsd.close()

    def test_series_do_not_grow_without_end(
        self, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Formatted names are kept up to a bound."""
        monkeypatch.setattr(module, "_SERIES", 10)
        statsd = StatsD(listener.url())
        for number in range(100):
            statsd.increment("n", 1, {"function": str(number)})

        assert len(statsd._series) <= 10
        statsd.close()


class TestConfiguration:
    def test_the_url_wins_over_arguments(self, listener: Listener) -> None:
        """Arguments are the defaults of what the URL does not say."""
        statsd = StatsD(listener.url("prefix=b"), prefix="a", tags={"env": "test"})
        statsd.increment("n", 1, {})

        assert ["b.test.n:1|c"] == sent(listener, statsd)

    def test_connect_makes_one_from_a_url(self) -> None:
        """The scheme statsd is offered through the entry point."""
        assert isinstance(connect("statsd://127.0.0.1:8125"), StatsD)

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("statsd://h:99999", "out of range"),
            ("statsd://h:0", "write statsd://host:port"),
            ("statsd://h:1/path", "without a path"),
            ("udp://h:1", "write statsd://host:port"),
            ("statsd://h?prefx=a", "did you mean 'prefix'"),
            ("statsd://h?tags=prod", "'prod' is not name:value"),
            ("statsd://h?dialect=graphite", "plain, datadog"),
        ],
    )
    def test_a_wrong_url_is_refused(self, url: str, says: str) -> None:
        """Each mistake in the URL is a ConfigError that says what is expected."""
        with pytest.raises(ConfigError, match=says):
            StatsD(url)


class TestUnixSockets:
    def test_lines_go_to_a_unix_socket(self, own_folder: Path) -> None:
        """A path in place of a host is a socket for datagrams on this machine."""
        path = own_folder / "statsd.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(path))
            server.settimeout(5)
            statsd = StatsD(f"statsd://{path}?prefix=")
            statsd.increment("n", 1, {})

            assert b"n:1|c" == server.recv(1400)
            statsd.close()

    def test_a_server_that_comes_back_is_found_again(
        self, own_folder: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
    ) -> None:
        """The socket of a server that ended is gone with it; lines flow to its successor."""
        monkeypatch.setattr(module, "RESOLVE_AGAIN", 0.01)
        path = own_folder / "statsd.sock"
        statsd = StatsD(f"statsd://{path}")
        statsd.increment("early", 1, {})
        for turn in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
                server.bind(str(path))
                server.setblocking(False)

                def heard(server: socket.socket = server, turn: int = turn) -> bytes:
                    statsd.increment(f"turn{turn}", 1, {})
                    statsd.flush()
                    try:
                        return server.recv(1400)
                    except BlockingIOError:
                        return b""

                wait_until(heard, what="a line arrives")
            path.unlink()
            statsd.increment("lost", 1, {})
            statsd.flush()
        statsd.close()

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("statsd://host/path", "without a path, or statsd:///path"),
            ("statsd://h?rate=0", "rate '0' is not a number above 0 and at most 1"),
            ("statsd://h?rate=x", "rate 'x' is not a number"),
        ],
    )
    def test_a_wrong_url_is_refused(self, url: str, says: str) -> None:
        """Each mistake is a ConfigError that says what is expected."""
        with pytest.raises(ConfigError, match=says):
            StatsD(url)
