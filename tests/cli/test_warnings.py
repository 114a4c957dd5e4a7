"""Who hears that a server may lose jobs: whoever starts a worker, once, and nobody else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tests.acceptance.command import GOOSE, run
from tests.servers.redis import RedisServer

LOST = "JOBS MAY BE LOST"


def test_a_starting_worker_warns_once_and_other_commands_do_not(own_folder: Path) -> None:
    """The supervisor has said it, so its processes do not; who looks at queues is not told each time."""
    (own_folder / "warned.py").write_text("def nothing(): ...\n")
    with RedisServer(own_folder / "server") as server:
        where = ("--broker", server.url)
        worker = run(
            GOOSE, "worker", "warned", *where, "--processes", "2", "--until-empty", at=own_folder
        )
        looked = run(GOOSE, "queues", *where, at=own_folder)

    assert (0, 0) == (worker.returncode, looked.returncode)
    assert 1 == worker.stderr.count(LOST), worker.stderr
    assert LOST not in looked.stderr


def test_what_is_hushed_is_loud_again_after_the_command(shop: Any, cli: Any) -> None:
    """A program that runs a command inside of itself keeps its own logging."""
    logging.getLogger("goose.brokers").setLevel(logging.INFO)
    try:
        assert 0 == cli("queues").code
        assert logging.INFO == logging.getLogger("goose.brokers").level
    finally:
        logging.getLogger("goose.brokers").setLevel(logging.NOTSET)
