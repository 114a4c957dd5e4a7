"""The fault campaign on a real RabbitMQ node: Redis's campaign, with this server's faults.

Three things are different. A node that loses a client lends its jobs again at once, while they
still run: so a fault of the broker explains a second run of what was under way, and so does a
client that could not send heartbeats. A job's next state is stored before the job leaves its queue,
so a fault in between leaves two. And what is scheduled or running cannot be counted, so that
all has drained is seen by what was done.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import goose
from goose.brokers.base import Inspector, State
from goose.brokers.rabbitmq import RabbitMQBroker, ladder
from goose.brokers.rabbitmq.ladder import Climb
from goose.jobs import decode
from goose.testing.proxy import Proxy
from tests.chaos import jobs, redis_campaign
from tests.chaos.history import Fault, read_marks
from tests.chaos.rabbitmq_faults import NETWORK, SERVER, Arena
from tests.chaos.redis_campaign import DEAD, Plan
from tests.chaos.redis_report import Result
from tests.servers.rabbitmq import RabbitServer

HEARTBEAT, TIMEOUT = 1, 4
"""Seconds, options of workers and clients."""
NOTICED = 3.0 * HEARTBEAT + 1.0
"""Seconds until both sides know of a dead connection, and have lent and run no more over it: three
heartbeats, and one more."""
UNWRITTEN = 0.5
"""Seconds for which a node may keep an ack back that it has answered. Source: rabbit_fifo_client.erl, by
which a channel keeps acks to itself while a quorum queue has not written 32 commands before them."""
LEADERLESS = 1.0
"""Seconds until a queue whose process was killed has another one; what is acked meanwhile waits with the
channel, and is gone with it. Source: ``resend_all_pending`` in rabbit_fifo_client.erl."""
RESTART = 12.0
"""Seconds that a node takes to start, about."""
QUIET = 3.0
"""Seconds, longer than a quarantine, in which nothing more comes when all is done."""

SMALL = replace(
    redis_campaign.SMALL,
    jobs=1_200,
    worker_faults=("kill_child", "kill_supervisor", "pause_briefly", "replace", "kill_child"),
    hold=0.25,
    threads=4,
)
FULL = replace(redis_campaign.FULL, threads=16)


class ChaosServer(RabbitServer):
    """A node whose clients notice each other's death quickly."""

    @property
    def url(self) -> str:
        """Its address, with short patience."""
        options = f"heartbeat={HEARTBEAT}&silence=1&timeout={TIMEOUT}&connect_timeout=3"
        return f"{super().url}?{options}"


def run(folder: Path, plan: Plan, say: Callable[[str], object] = lambda _: None) -> Result:
    """Run the campaign in *folder* and return what came of it; as `redis_campaign.run`."""
    with (
        ChaosServer(folder / "server") as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        return _Campaign(folder, plan, server, proxy, say).run()


class _Campaign(redis_campaign.Campaign):
    """One campaign under way."""

    server_faults = SERVER
    network_faults = NETWORK
    # A call has one deadline, whatever it does first; 1 s is for a machine that does all this at once.
    call_limit = TIMEOUT + 1.0
    unwritten, copies = UNWRITTEN, True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.crew.brief = HEARTBEAT  # a server gives a client up that was silent for twice as long
        self._quiet_since: float | None = None

    def make_arena(self, server: Any, proxy: Proxy) -> Any:
        return Arena(server, proxy, self.chance, self.plan.hold)

    def round(self) -> float:
        return super().round() + 2 * RESTART

    def run(self) -> Result:
        self._make_queues()
        return super().run()

    def _make_queues(self) -> None:
        """Make every queue that will be used, and wait until the node's disk knows of it.

        RabbitMQ 3.10 buffers that for 3 s, and a queue it forgets in a kill confirms nothing.
        """
        with contextlib.closing(RabbitMQBroker(self.arena.server.url)) as broker:
            parts, deadline = broker._parts, time.monotonic() + 60.0
            for queue in ("default", *(f"own-{n}" for n in range(len(self.crew.fleets)))):
                parts.topology.dead(queue, deadline)
            for level in range(3):
                for digit in range(1, ladder.BASE):
                    way = Climb(digit * ladder.BASE**level, 0.0)
                    parts.topology.way(way, "default", deadline)
            time.sleep(4.0)

    def _incident(
        self, kind: str, act: Callable[[Any], None], *, far_only: bool, alone: bool = True
    ) -> None:
        pids = self.crew.pids()
        began = time.monotonic()
        first = threading.Thread(target=self._call_first, args=(f"first-{len(self.incidents)}",))
        first.start()
        super()._incident(kind, act, far_only=far_only, alone=alone)
        first.join()
        over = self.incidents[-1].over
        if kind == "leaders killed":
            until = over + LEADERLESS
            self.more_faults += [Fault(kind, pid, began, until, forgets=True) for pid in pids]
        self.more_faults += [Fault(kind, pid, began, over + NOTICED) for pid in pids]

    def _call_first(self, name: str) -> None:
        """Enqueue as a program does that has just begun, and knows of no queue yet."""
        with contextlib.closing(RabbitMQBroker(self.through)) as broker:
            client = goose.Client(broker)
            try:
                self.producers.persist(client, lambda: client.enqueue(jobs.work, name, 0.0), [name])
            except Exception as error:  # noqa: BLE001 - it is reported, and the campaign fails
                self.producers.strange.append(f"{type(error).__name__}: {error}")

    def _judge(self, broker: Inspector, poison: list[str]) -> Result:
        # Heartbeats are a thread's: a process that keeps the interpreter has lost its jobs to others.
        for run in read_marks(self.crew.marks):
            if run.name.startswith("held"):
                until = (run.end or run.start + self.plan.ttl * 2) + NOTICED
                self.more_faults.append(Fault("hold_interpreter", run.pid, run.start, until))
        return super()._judge(broker, poison)

    def left(self, broker: Inspector) -> int:
        """Return how many jobs have not come to an end, or come to rest."""
        time.sleep(0.2)
        names = {*self.producers.acknowledged, *self.forked, *self.crew.names}
        ended = {run.name for run in read_marks(self.crew.marks) if run.end is not None}
        # By name, since whatever was sent twice is dead twice.
        dead = {str(job.args[0]) for job in self.stored(broker)[State.DEAD] if job.args}
        undone = len(names - ended) + len(DEAD.keys() - dead) + broker.count(State.READY)
        now = time.monotonic()
        if undone:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        rested = self._quiet_since is not None and now - self._quiet_since > QUIET
        return undone + (not rested)

    def stored(self, broker: Inspector) -> dict[State, list[goose.Job]]:
        found: dict[State, list[goose.Job]] = {state: [] for state in State}
        for state in (State.READY, State.DEAD):
            found[state] = [decode(item.envelope) for item in broker.page(state, limit=9999).items]
        return found

    def left_over(self) -> str:
        queues = self.arena.server.control("list_queues", "-q", "--no-table-headers", "name")
        return f"{len(queues.splitlines())} queues"
