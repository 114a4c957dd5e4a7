"""What a supervisor shows: health by progress, numbers of all processes, queues measured once."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Share
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable, ConfigError
from goose.jobs import Job, seal
from goose.metrics.base import BROKER_UP, PROCESSED, QUEUE_OLDEST, QUEUE_SIZE
from goose.worker.errands import run_into
from goose.worker.heartbeat import EVERY, HeartbeatFile, read
from goose.worker.observer import CONTACT_SECONDS, STUCK_SECONDS, Observer
from goose.worker.schedule import MEASURE_EVERY
from goose.worker.serving import AT_ONCE, Server
from goose.worker.systemd import Notifier


class Process:
    def __init__(self, world: World) -> None:
        self.world = world
        self.contact = world.now
        self.tick = world.now

    def last_contact(self) -> float:
        return self.contact

    def last_tick(self) -> float:
        return self.tick


class Charge:
    """As much of a child as an observer looks at."""

    def __init__(self, world: World) -> None:
        self.label = "worker 1 (7)"
        self.works = True
        self.process = Process(world)

    def in_contact(self, now: float, within: float) -> bool:
        return self.works and now - self.process.contact <= within


class Supervisor:
    def __init__(self) -> None:
        self.charges: list[Charge] = []
        self.stopping = False
        self.told: list[Any] = []

    def tell_gauges(self, gauges: Any) -> None:
        self.told.append(gauges)


class Broker(MemoryBroker):
    down = False

    def queues(self) -> Any:
        if self.down:
            raise BrokerUnavailable("gone")
        return super().queues()


class World:
    """An observer, what it looks at, and the time."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.now = 1000.0
        self.broker = Broker(clock=self.wall)
        self.supervisor = Supervisor()
        self.hangs = False
        self.file = folder / "heartbeat.json"
        self.observer = Observer(
            self.broker,
            [Share("default")],
            submit=self.submit,
            heartbeat=HeartbeatFile(str(self.file)),
            notifier=Notifier(environ),
            stall_limit=900.0,
            measures=True,
            clock=self,
        )

    def mono(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1e9 + self.now

    def submit(self, errand: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.hangs:
            run_into(errand, future)
        return future

    def step(self, after: float = 0.25, *, alive: bool = True) -> None:
        self.now += after
        for charge in self.supervisor.charges:
            if alive:
                charge.process.tick = charge.process.contact = self.now
        self.observer.step(self.supervisor, self.now)  # type: ignore[arg-type]

    def ready(self) -> tuple[int, str]:
        status, _, text = self.observer.readyz()
        return status, text.strip()

    def gauges(self) -> dict[tuple[str, str], float]:
        return {
            (name, tags.get("state", tags.get("queue", ""))): value
            for name, value, tags in self.observer.numbers_of_all.gauges()
        }


@pytest.fixture
def world(own_folder: Path) -> World:
    return World(own_folder)


def test_a_worker_is_ready_once_a_process_takes_jobs(world: World) -> None:
    """Not while it starts, not while it stops, and by itself again after a death."""
    world.step()
    assert (503, "no process takes jobs yet") == world.ready()
    world.supervisor.charges.append(Charge(world))
    world.step()
    assert (200, "taking jobs") == world.ready()
    world.supervisor.charges[0].works = False
    world.step()
    assert 503 == world.ready()[0]
    world.supervisor.charges[0].works = True
    world.supervisor.stopping = True
    world.step()
    assert (503, "stopping") == world.ready()


def test_an_outage_of_the_broker_is_not_ready_but_alive(world: World) -> None:
    """Restarting workers would not end an outage, so nothing asks for that."""
    world.supervisor.charges.append(Charge(world))
    world.step()
    for _ in range(int(CONTACT_SECONDS) + 1):
        world.supervisor.charges[0].process.tick = world.now
        world.step(1.0, alive=False)

    status, text = world.ready()
    assert 503 == status
    assert "the broker has not answered" in text
    assert 200 == world.observer.livez()[0]
    world.step()
    assert 200 == world.ready()[0]


def test_a_supervisor_that_does_not_move_is_not_alive(world: World) -> None:
    """Its loop looks several times a second; half a minute without is a hang."""
    world.step()
    world.now += STUCK_SECONDS - 1
    assert 200 == world.observer.livez()[0]
    world.now += 2
    assert (503, "the supervisor has not moved for 31 s\n") == world.observer.livez()[::2]


def test_a_process_that_cannot_be_got_rid_of_is_not_alive(world: World) -> None:
    """One without a tick for longer than any process may be."""
    world.supervisor.charges.append(Charge(world))
    world.step()
    world.step(900.0 + STUCK_SECONDS + 1, alive=False)

    assert (503, "worker 1 (7) makes no progress\n") == world.observer.livez()[::2]


def test_queues_are_measured_once_for_all_processes(world: World) -> None:
    """Also those that nobody here takes jobs from; the result goes to one child as well."""
    jobs: list[Job[Any]] = [Job(id=str(n), fn="a:b", queue="other") for n in range(3)]
    world.broker.enqueue([seal(job) for job in jobs])
    world.step()
    world.step(2.0)
    gauges = world.gauges()

    assert 3 == gauges[QUEUE_SIZE, "ready"]
    assert {"default", "other"} <= {queue for name, queue in gauges if name == QUEUE_OLDEST}
    assert 1 == gauges[BROKER_UP, ""]
    assert 1 == len(world.supervisor.told)
    assert gauges.keys() == {
        (name, tags.get("state", tags.get("queue", "")))
        for name, _, tags in world.supervisor.told[0]
    }


def test_a_broker_that_is_down_or_hangs_is_shown_as_down(world: World) -> None:
    """And no size of a queue is shown that is not known."""
    world.step()
    world.step()
    world.broker.down = True
    world.step(MEASURE_EVERY)
    world.step()
    assert {(BROKER_UP, ""): 0} == world.gauges()
    world.broker.down = False
    world.step(MEASURE_EVERY)
    world.step()
    assert 1 == world.gauges()[BROKER_UP, ""]
    world.hangs = True
    world.step(MEASURE_EVERY)
    world.step(MEASURE_EVERY + 1)
    assert {(BROKER_UP, ""): 0} == world.gauges()


def test_what_processes_hand_over_is_served(world: World) -> None:
    """As one number, under its name in Prometheus."""
    tags = {"queue": "q", "function": "f"}
    world.observer.numbers("1/1", [("counter", PROCESSED, tags, 2)])
    world.observer.numbers("2/2", [("counter", PROCESSED, tags, 3)])
    world.observer.count("worker.deaths", 1, {"cause": "died"})
    world.observer.ended("1/1")

    status, kind, text = world.observer.metrics()
    assert 200 == status
    assert "version=0.0.4" in kind
    assert 'goose_jobs_processed_total{queue="q",function="f"} 5\n' in text
    assert 'goose_worker_deaths_total{cause="died"} 1\n' in text


# --- the heartbeat file --------------------------------------------------------------------


def test_the_heartbeat_file_says_how_the_worker_is(world: World) -> None:
    """Written whole every few seconds, and gone with the worker."""
    path = str(world.file)
    assert not read(path)[0]
    world.step()
    assert (True, False, "no process takes jobs yet") == read(path)
    world.supervisor.charges.append(Charge(world))
    world.step(EVERY)
    assert (True, True, "taking jobs") == read(path)
    assert os.getpid() == json.loads(world.file.read_text())["pid"]
    assert ["heartbeat.json"] == [entry.name for entry in world.file.parent.iterdir()]
    world.observer.close()
    assert not world.file.exists()


def test_an_old_or_broken_heartbeat_file_counts_for_nothing(own_folder: Path) -> None:
    """Each with its reason."""
    path = own_folder / "heartbeat"
    path.write_text('{"at": 1, "ready": true, "why": ""}')
    assert "s old" in read(str(path))[2]
    path.write_text("{")
    assert (False, False) == read(str(path))[:2]
    path.write_text("[]")
    assert "cannot be read" in read(str(path))[2]


def test_a_heartbeat_file_that_cannot_be_written_costs_one_line(
    own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or a missing folder does not end a worker, nor fill its log."""
    file = HeartbeatFile(str(own_folder / "missing" / "file"))
    for number in range(10):
        file.step(number * EVERY, ready=True, why="")

    assert 1 == caplog.text.count("heartbeat file cannot be written")


# --- systemd -------------------------------------------------------------------------------


@pytest.fixture
def systemd(own_folder: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The path of systemd's socket, and what it has heard since."""
    path = str(own_folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.setblocking(False)

        def heard() -> list[str]:
            found: list[str] = []
            while True:
                try:
                    found += server.recv(4096).decode().split("\n")
                except BlockingIOError:
                    return found

        yield path, heard


def test_systemd_hears_when_the_worker_is_ready_and_that_it_lives(
    own_folder: Path, systemd: tuple[str, Callable[[], list[str]]]
) -> None:
    """READY once, a beat in half the time systemd waits, STOPPING at the end."""
    path, heard = systemd
    world = World(own_folder, NOTIFY_SOCKET=path, WATCHDOG_USEC="4000000")
    world.step()
    assert ["STATUS=no process takes jobs yet", "WATCHDOG=1"] == heard()
    world.supervisor.charges.append(Charge(world))
    world.step()
    assert ["READY=1", "STATUS=taking jobs"] == heard()
    for _ in range(8):
        world.step()
    assert ["WATCHDOG=1"] == heard()
    world.supervisor.stopping = True
    world.step()
    assert ["STATUS=stopping", "STOPPING=1"] == heard()


def test_without_systemd_nothing_is_sent(own_folder: Path) -> None:
    """Also not if its watchdog is meant for another process, or its socket is gone."""
    World(own_folder).step()
    World(
        own_folder, NOTIFY_SOCKET=str(own_folder / "gone"), WATCHDOG_USEC="1", WATCHDOG_PID="1"
    ).step()


# --- over HTTP -----------------------------------------------------------------------------


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_routes_are_served(world: World) -> None:
    """Each by its path, with its status; what there is instead is said of others."""
    world.step()
    server = Server("127.0.0.1", 0, world.observer.routes)
    try:
        assert (200, "alive\n") == get(server.port, "/livez?x=1")
        assert (503, "no process takes jobs yet\n") == get(server.port, "/readyz")
        assert "# TYPE goose_jobs_processed_total counter" in get(server.port, "/metrics")[1]
        assert (404, "there are: /livez, /readyz, /metrics\n") == get(server.port, "/")
        assert (200, "") == get(server.port, "/livez", "HEAD")
        assert 501 == get(server.port, "/livez", "POST")[0]
    finally:
        server.close()


def test_silent_clients_do_not_keep_others_out(world: World) -> None:
    """So many may be silent for some seconds; the next is turned away, not kept waiting."""
    world.step()
    server = Server("127.0.0.1", 0, world.observer.routes)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(AT_ONCE - 1)]
    try:
        assert 200 == get(server.port, "/livez")[0]
    finally:
        for one in silent:
            one.close()
        server.close()


def test_a_port_in_use_is_named() -> None:
    """The error says which port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=f"port {taken.getsockname()[1]}: Address already in"):
            Server("127.0.0.1", taken.getsockname()[1], {})
