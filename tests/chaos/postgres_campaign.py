"""The fault campaign on a real PostgreSQL server: Redis's campaign, with this server's faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from goose.testing.proxy import Proxy
from tests.chaos import redis_campaign
from tests.chaos.postgres_faults import CONFIG, NETWORK, SERVER, Arena
from tests.chaos.redis_campaign import Plan
from tests.chaos.redis_report import Result
from tests.servers.postgres import PostgresServer

SMALL = replace(
    redis_campaign.SMALL,
    jobs=1_500,
    worker_faults=("kill_child", "kill_supervisor", "pause_briefly", "replace", "kill_child"),
    hold=0.25,
)
FULL = redis_campaign.FULL


def run(folder: Path, plan: Plan, say: Callable[[str], object] = lambda _: None) -> Result:
    """Run the campaign in *folder* and return what came of it; as `redis_campaign.run`."""
    with (
        PostgresServer(folder / "server", config=CONFIG) as server,
        Proxy(("127.0.0.1", server.port)) as proxy,
    ):
        return _Campaign(folder, plan, server, proxy, say).run()


class _Campaign(redis_campaign.Campaign):
    """One campaign under way."""

    server_faults = SERVER
    network_faults = NETWORK

    def make_arena(self, server: Any, proxy: Proxy) -> Any:
        return Arena(server, proxy, self.chance, self.plan.hold)

    def left_over(self) -> str:
        query = (
            "SELECT (SELECT count(*) FROM goose.jobs), (SELECT count(*) FROM goose.jobs WHERE "
            "state < 3), (SELECT count(*) FROM goose.sessions WHERE state < 2)"
        )
        [(jobs, living, sessions)] = self.arena.server.execute(query)
        return f"{jobs} jobs, {living} of them not dead, and {sessions} sessions"
