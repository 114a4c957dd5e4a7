"""What a campaign counts as left is all there is, also while it moves."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from goose.brokers.base import Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.jobs import Job, seal
from tests.chaos.remains import WAITING, left, stored
from tests.servers.redis import RedisServer


def test_a_job_on_the_move_is_always_left(own_folder: Path) -> None:
    """A job that is lent and scheduled again all the time is counted by every look."""
    moving = threading.Event()
    moving.set()
    with (
        RedisServer(own_folder / "server") as server,
        closing(RedisBroker(server.url)) as broker,
        closing(RedisBroker(server.url)) as looking,
    ):
        session = Session("mover")
        broker.open(session, ttl=60)
        broker.enqueue([seal(Job("1", "app:fn", queue="own"))])

        def move() -> None:
            while moving.is_set():
                for lent in broker.dequeue(session, [Share("own")], limit=1, wait=0):
                    broker.requeue([(lent, lent.envelope.evolve(delay=0.001))])

        mover = threading.Thread(target=move)
        mover.start()
        try:
            looks = {left(looking) for _ in range(500)}
        finally:
            moving.clear()
            mover.join()
        remains = stored(looking)

    assert {1} == looks
    assert ["1"] == [job.id for state in WAITING for job in remains[state]]
    assert [] == remains[State.DEAD]
