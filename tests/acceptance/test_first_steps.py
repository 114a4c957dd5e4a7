"""The example program runs on every broker by a change of its configuration alone."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import goose
from tests.acceptance.command import GOOSE, run
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

PRINTED = """\
Ada: Ada owes 9.90 by 31 January 2030
Ada-reminder: Dear Ada, please pay.
Alan-reminder: Dear Alan, please pay.
Edsger: Edsger owes 7.00 by 28 February 2030
Grace-reminder: Dear Grace, please pay.
"""


@pytest.fixture
def example(root: Path, own_folder: Path) -> Path:
    """A copy of the example."""
    return Path(shutil.copytree(root / "examples" / "first_steps", own_folder / "example"))


def name_broker(example: Path, url: str) -> None:
    """Change the one line that names the broker."""
    configuration = example / "goose.toml"
    written = re.sub(r'(?m)^broker = ".*"', f'broker = "{url}"', configuration.read_text())
    configuration.write_text(written)


@pytest.mark.processes
@pytest.mark.parametrize("broker", [None, "memory://", "sqlite:///deep/other.db"])
def test_only_the_configuration_names_the_broker(example: Path, broker: str | None) -> None:
    """As it is, in memory and in another file: the same output, and nothing left to do."""
    if broker:
        (example / "deep").mkdir()
        name_broker(example, broker)
    done = run(sys.executable, "program.py", at=example)

    assert (0, PRINTED) == (done.returncode, done.stdout), done.stderr
    databases = [path.name for path in example.rglob("*.db")]
    assert {None: ["first_steps.db"], "memory://": []}.get(broker, ["other.db"]) == databases
    for path in example.rglob("*.db"):
        with goose.Client(f"sqlite:///{path}") as client:
            assert [] == list(client.inspector.find())


@pytest.mark.processes
def test_redis_is_one_line_away(example: Path, own_folder: Path) -> None:
    """On a Redis server: the same output, nothing left to do, and no file in its place."""
    with RedisServer(own_folder / "server") as server:
        name_broker(example, server.url)
        done = run(sys.executable, "program.py", at=example)

        assert (0, PRINTED) == (done.returncode, done.stdout), done.stderr
        assert [] == list(example.rglob("*.db"))
        with goose.Client(server.url) as client:
            assert [] == list(client.inspector.find())
            # Names of queues in which nothing is left are forgotten in time.
            assert "cmdstat_evalsha" in server.client.info("commandstats"), "it was not used"


@pytest.mark.processes
def test_postgres_is_one_line_away(example: Path, own_folder: Path) -> None:
    """On a PostgreSQL server: the same output, nothing left to do, and no file in its place."""
    with PostgresServer(own_folder / "server") as server:
        name_broker(example, server.url)
        done = run(sys.executable, "program.py", at=example)

        assert (0, PRINTED) == (done.returncode, done.stdout), done.stderr
        assert [] == list(example.rglob("*.db"))
        with goose.Client(server.url) as client:
            assert [] == list(client.inspector.find())


@pytest.mark.processes
def test_rabbitmq_is_one_line_away(example: Path, own_folder: Path) -> None:
    """On a RabbitMQ server: the same output, nothing left to do, and no file in its place."""
    with RabbitServer(own_folder / "server") as server:
        name_broker(example, server.url)
        done = run(sys.executable, "program.py", at=example)

        assert (0, PRINTED) == (done.returncode, done.stdout), done.stderr
        assert [] == list(example.rglob("*.db"))
        with goose.Client(server.url) as client:
            assert [] == list(client.inspector.queues())
        assert "goose/default/q/default" in server.control("list_queues", "name")


@pytest.mark.processes
def test_a_worker_process_runs_the_examples_jobs(example: Path) -> None:
    """`goose worker` without arguments does what goose.toml says."""
    enqueue = (
        "from pathlib import Path; import goose; from first_jobs import remind\n"
        "goose.enqueue(remind, 'Barbara', Path.cwd())"
    )
    assert 0 == run(sys.executable, "-c", enqueue, at=example).returncode
    done = run(GOOSE, "worker", "--until-empty", at=example)

    assert 0 == done.returncode, done.stderr
    assert "Dear Barbara, please pay.\n" == (example / "Barbara-reminder.txt").read_text()
