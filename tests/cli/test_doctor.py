"""`goose doctor` finds what is wrong, names it by a code, and changes nothing."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import goose
from goose.brokers.base import Capability
from goose.brokers.examining import Examination, Finding, Kind
from goose.brokers.memory import MemoryBroker
from goose.brokers.postgres import examination as of_postgres
from goose.brokers.rabbitmq import examination as of_rabbitmq
from goose.brokers.rabbitmq.options import Options as RabbitOptions
from goose.brokers.redis import examination as of_redis
from goose.brokers.sqlite import examination as of_sqlite
from goose.cli import checkups, findings
from goose.cli.doctor import command
from goose.errors import MissingDriver
from goose.jobs import Envelope, Job, new_id, seal
from tests.servers.kinds import address
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import DURABLE, RedisServer

APP = """
def greet(name: str) -> None: ...

def renamed(name: str, *, loud: bool) -> None: ...
"""


@pytest.fixture
def app(importable: Path) -> Path:
    """A module of functions, and a broker's file that exists."""
    (importable / "doctored.py").write_text(APP)
    (importable / "goose.toml").write_text('broker = "sqlite:///jobs.db"\n')
    return importable


def doctor(*arguments: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    done = CliRunner().invoke(command, [*arguments, "--json"], standalone_mode=False)
    assert done.exception is None, done.output
    found = json.loads(done.stdout)
    return done.return_value, found["findings"], found


def codes(*arguments: str) -> list[str]:
    return [finding["code"] for finding in doctor(*arguments)[1]]


def store(*envelopes: Envelope) -> None:
    with goose.Client(f"sqlite:///{Path.cwd()}/jobs.db") as client:
        client.broker.enqueue(envelopes)


def job(fn: str, *args: Any, queue: str = "default", **fields: Any) -> Envelope:
    return seal(Job(new_id(), fn, args, queue=queue, enqueued_at=1.0, **fields))


def test_nothing_is_wrong_with_what_fits(app: Path) -> None:
    """Exit code 0, no finding, and no database made by looking."""
    assert (0, []) == doctor("doctored")[:2]
    assert not (app / "jobs.db").exists()
    store(job("doctored:greet", "ada"))
    code, found, whole = doctor("doctored")
    assert (0, []) == (code, found)
    assert whole["ok"]
    assert whole["facts"]["broker"].endswith("goose.toml: broker)")


def test_jobs_this_code_cannot_run_are_found(app: Path) -> None:
    """By function with their number, whatever else is in the queue."""
    store(
        *[job("doctored:greet", "ada")] * 1,
        *[job("doctored:gone", n) for n in range(3)],
        job("elsewhere:greet"),
        job("doctored:renamed", "ada"),
        Envelope("raw", "default", b"{"),
        job("doctored:greet", "ada", queue="letters"),
    )
    code, found, _ = doctor("doctored")

    assert 1 == code
    assert ["G404", "G401", "G401", "G402", "G403"] == [one["code"] for one in found]
    assert {"function": "doctored:gone", "jobs": 3} == found[1]["about"]
    assert "loud" in found[3]["detail"]
    assert {"queue": "letters", "jobs": 1} == found[0]["about"]
    assert "G404" not in codes("doctored", "--queues", "default,letters")


def test_warnings_fail_only_if_asked_to(app: Path) -> None:
    """--strict is for deployments that want to know."""
    store(job("doctored:greet", "ada", queue="letters"))

    assert 0 == doctor("doctored")[0]
    assert 1 == doctor("doctored", "--strict")[0]


def test_a_driver_that_is_missing_has_its_line(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix is what to type, not what the message says."""
    line = "pip install 'goose-jobs[redis]'"

    def connect(_: object) -> None:
        raise MissingDriver(f"broker 'redis://h' needs the Python package 'redis': {line}")

    monkeypatch.setattr("goose.brokers.connect", connect)
    [found] = doctor("doctored", "--broker", "redis://h")[1]

    assert ("G306", line) == (found["code"], found["fix"])
    assert "broker 'redis://h' needs the Python package 'redis'" == found["detail"]


def test_settings_are_shown_as_they_are_written(app: Path) -> None:
    """No Python is needed to read them, and what there is to say is said once."""
    store(job("doctored:greet", "ada", queue="mail"))
    shown = CliRunner().invoke(command, ["--queues", "mail=6,default=3"], standalone_mode=False)
    whole = CliRunner().invoke(command, ["doctored", "--queues", "mail"], standalone_mode=False)

    assert "mail=6, default=3  (argument queues)" in shown.stdout
    assert "G102 note: no modules are named\n" in shown.stdout
    assert "0 errors, 0 warnings, 1 note" in shown.stdout
    assert "doctored  (argument allow)" in whole.stdout


def test_settings_and_what_they_name_are_looked_at(app: Path) -> None:
    """Each part that cannot be had, and settings that contradict each other."""
    (app / "goose.toml").write_text(
        'timeout = 60\nhard_timeout = 30\nmiddleware = ["doctored:nothing"]\n'
        'client_metrics = ["statds://h"]\nmetrics = ["prometheus://:1"]\n'
        'before_enqueue = ["nowhere:x"]\n'
    )
    code, found, _ = doctor("doctored")

    assert 1 == code
    assert ["G105", "G104", "G103", "G103", "G103"] == [one["code"] for one in found]
    assert "did you mean 'statsd'" in found[4]["detail"]


@pytest.mark.parametrize(
    ("toml", "arguments", "code"),
    [
        ("concurency = 3", ["doctored"], "G101"),
        ("", ["doctored", "--broker", "nonsense"], "G101"),
        ("", [], "G102"),
        ("", ["missing_module"], "G201"),
        ("", ["empty_module"], "G202"),
        ("", ["doctored", "--broker", "redis://127.0.0.1:1/0?connect_timeout=1"], "G301"),
        ("", ["doctored", "--broker", "memory://"], "G303"),
    ],
)
def test_what_keeps_a_worker_from_starting(
    app: Path, toml: str, arguments: list[str], code: str
) -> None:
    """Each has a code of its own, and no traceback."""
    (app / "empty_module.py").write_text("x = 1\n")
    (app / "goose.toml").write_text(toml)

    assert code in codes(*arguments)


def test_dead_and_old_jobs_are_told(app: Path) -> None:
    """With their queue, their number and their age."""
    clock = [1_000.0]
    broker = MemoryBroker(clock=lambda: clock[0])
    inspection = goose.Client(broker).inspector
    broker.enqueue([job("doctored:greet", "ada")])
    clock[0] += 2 * 3600
    found = [*checkups.queues(goose.Settings(), inspection)]

    assert [findings.OLD_JOBS] == [one.kind for one in found]
    assert "2.0 h" in found[0].detail


def test_a_sqlite_file_is_looked_at(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk, its file system, its durability."""
    store(job("doctored:greet", "ada"))
    assert ["G323"] == codes("doctored", "--broker", "sqlite:///jobs.db?synchronous=normal")
    monkeypatch.setattr(of_sqlite, "file_system", lambda _path: "nfs4")
    monkeypatch.setattr(of_sqlite, "ROOM", 1 << 60)
    code, found, _ = doctor("doctored")
    assert (1, ["G322", "G324"]) == (code, [one["code"] for one in found])


def test_a_file_system_is_the_innermost_mount(tmp_path: Path) -> None:
    """By what the kernel says is mounted where."""
    assert "proc" == of_sqlite.file_system(Path("/proc/self"))
    assert of_sqlite.file_system(tmp_path) not in {"", "proc"}


def test_a_redis_server_is_looked_at(app: Path) -> None:
    """Its memory policy, its persistence, its clients; nothing is wrong with a durable one."""
    with RedisServer(app / "good", config={**DURABLE}) as server:
        assert [] == codes("doctored", "--broker", server.url)
    config = {
        "maxmemory": "100mb",
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
    }
    with RedisServer(app / "bad", config=config) as server:
        assert ["G311", "G312"] == codes("doctored", "--broker", server.url)
        server.client.config_set("save", "900 1")
        server.client.config_set("maxmemory", "1500kb")
        server.client.config_set("maxclients", "10")
        keep = [server.new_client() for _ in range(8)]
        for one in keep:
            one.ping()
        found = codes("doctored", "--broker", server.url)
    assert {"G311", "G313", "G316"} <= set(found)


def test_a_postgres_server_is_looked_at(app: Path) -> None:
    """Its durability, its connections, what keeps it from cleaning up; nothing is wrong with a usual one."""
    with PostgresServer(app / "good") as server:
        _, found, whole = doctor("doctored", "--broker", server.url)
        assert [] == found
        assert whole["facts"]["server"].startswith("PostgreSQL 1")
    config = {
        "fsync": "off",
        "synchronous_commit": "off",
        "autovacuum": "off",
        "max_connections": "12",
        "superuser_reserved_connections": "3",
    }
    with PostgresServer(app / "bad", config=config) as server:
        keep = [psycopg.connect(server.url) for _ in range(7)]
        found = codes("doctored", "--broker", server.url)
        for one in keep:
            one.close()

    assert ["G341", "G342", "G344", "G345"] == found


def test_a_disk_that_cannot_be_written_is_told() -> None:
    """Redis says so itself."""
    info = {"redis_version": "7.2.4", "aof_last_write_status": "err", "maxmemory": "0"}
    found = [*of_redis.found(info)]

    assert ["G317"] == [one.kind.code for one in found]
    assert "aof_last_write_status is err" == found[0].detail


def test_what_holds_up_a_database_is_told() -> None:
    """A transaction that is open for long, and ids that run out."""
    seen = of_postgres.Seen(0.0, "16.1", 3, 100, 7200.0, 2_000_000_000)
    found = of_postgres.examine(seen, {"server_encoding": "LATIN1"}, 0.0).findings

    assert ["G343", "G346", "G347"] == [one.kind.code for one in found]
    assert "2.0 h" in found[1].detail


def test_a_rabbitmq_server_is_looked_at(app: Path) -> None:
    """What it is, and what the URL gives up; it has no clock to compare."""
    with RabbitServer(app / "rabbit") as server:
        _, found, whole = doctor("doctored", "--broker", server.url)
        assert [] == found
        assert whole["facts"]["server"].startswith("RabbitMQ 3.")
        assert ["G332"] == codes("doctored", "--broker", f"{server.url}?queue_type=classic")
    old = of_rabbitmq.examine(RabbitOptions(tls=True, tls_verify=False), {"version": "3.9.13"})
    assert ["G331", "G333"] == [one.kind.code for one in old.findings]


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_clock_that_differs_is_told(
    app: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how much, and in which direction."""
    with address(kind, app) as url:
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - 60)
        _, found, _ = doctor("doctored", "--broker", url)

    (skew,) = [one for one in found if one["code"] == "G305"]
    assert 58 < skew["about"]["seconds"] < 62


class Shelf(MemoryBroker):
    """A broker of somebody else's, shared by processes, that can tell about its server."""

    capabilities = MemoryBroker.capabilities | {Capability.SHARED}

    def examine(self) -> Examination:
        full = Kind("SHELF1", "warning", "the shelf is full", "No book fits.", "buy another")
        return Examination("Shelf 7", -30.0, [Finding(full, "9 of 9")])


def test_a_broker_of_ones_own_can_tell_as_well() -> None:
    """Through the companion protocol, with codes of its own."""
    broker, server, found = checkups.broker(goose.Settings(broker=Shelf()))

    assert broker is not None
    assert "Shelf 7" == server
    assert ["G305", "SHELF1"] == [one.kind.code for one in found]


def test_secrets_are_not_shown(app: Path) -> None:
    """Neither in settings nor in findings, in no format."""
    arguments = ["doctored", "--broker", "redis://user:hunter2@127.0.0.1:1/0?connect_timeout=1"]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(command, [*arguments, *more])
        assert "hunter2" not in done.output
        assert "user:***@" in done.output


def test_the_page_lists_the_findings_as_they_are(root: Path) -> None:
    """docs/doctor.md is what tools/doctor_table.py writes; codes are unique and in order."""
    spec = importlib.util.spec_from_file_location("doctor_table", root / "tools/doctor_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs/doctor.md").read_text()

    assert module.text(page) == page
    found = [kind.code for kind in findings.everything()]
    assert len(set(found)) == len(found)
