"""``make chaos BROKER=…``: the fault campaign in full, with its report.

Usage: python -m tests.chaos.run BROKER [--jobs N] [--seed N] [--kills N] [--rounds N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos import (
    completions,
    flows,
    postgres_campaign,
    rabbitmq_campaign,
    redis_campaign,
    redis_failover,
    sqlite_transactions,
    transactions,
    workers,
)
from tests.servers.redis import DURABLE, RedisServer


def main() -> int:
    """Run the campaign; return 0 if nothing was lost and every duplicate is explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "broker",
        choices=[
            "sqlite",
            "redis",
            "sentinel",
            "postgres",
            "rabbitmq",
            "transactions",
            "completions",
            "flows",
        ],
    )
    parser.add_argument("--jobs", type=int, help="jobs in all")
    parser.add_argument("--kills", type=int, default=20, help="sqlite: kills of workers")
    parser.add_argument(
        "--rounds",
        type=int,
        help="redis, postgres: how often each fault; sentinel: failovers; completions: faults",
    )
    parser.add_argument("--small", action="store_true", help="redis, postgres: as in the tests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to leave logs and marks")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goose-chaos-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(
                f"{folder} is not empty: what another campaign left there would be judged, too"
            )
        campaigns = {
            "sqlite": _sqlite,
            "redis": _on_a_server,
            "postgres": _on_a_server,
            "rabbitmq": _on_a_server,
            "sentinel": _sentinel,
            "transactions": _transactions,
            "completions": _completions,
            "flows": _flows,
        }
        return campaigns[chosen.broker](chosen, folder)


def _sqlite(chosen: argparse.Namespace, folder: Path) -> int:
    plan = workers.Plan(chosen.jobs or 20_000, chosen.kills, seed=chosen.seed)
    result = workers.run(f"sqlite:///{folder}/chaos.db", folder, plan)
    print("\n".join(result.lines()))
    poison = {"segfault": "crashed", "leave": "crashed", "never_end": "timeout"}
    if result.dead != poison:
        print(f"dead should be exactly {poison}")
    return 0 if result.verdict.ok and result.dead == poison else 1


def _on_a_server(chosen: argparse.Namespace, folder: Path) -> int:
    campaign = {
        "redis": redis_campaign,
        "postgres": postgres_campaign,
        "rabbitmq": rabbitmq_campaign,
    }[chosen.broker]
    plan = campaign.SMALL if chosen.small else campaign.FULL
    plan = replace(
        plan,
        jobs=chosen.jobs or plan.jobs,
        rounds=chosen.rounds or plan.rounds,
        seed=chosen.seed,
    )
    result = campaign.run(folder, plan, say=lambda text: print(text, flush=True))
    print("\n".join(result.lines()))
    return 0 if result.ok else 1


def _transactions(chosen: argparse.Namespace, folder: Path) -> int:
    # Each broker has its part of them; a node of RabbitMQ takes its time to start.
    ok = True
    for to, part, crash_every in (("postgres", 0.4, 5), ("redis", 0.35, 8), ("rabbitmq", 0.25, 30)):
        outcome = transactions.run(
            folder / to,
            round((chosen.jobs or 100_000) * part),
            to=to,
            crash_every=crash_every,
            seed=chosen.seed,
            say=lambda text: print(text, end="\r", flush=True),
        )
        print("\n".join([f"jobs on {to}", *outcome.lines()]), flush=True)
        ok &= outcome.ok
    place = folder / "sqlite"
    place.mkdir(parents=True, exist_ok=True)
    outcome = sqlite_transactions.run(
        place,
        round((chosen.jobs or 100_000) * 0.2),
        seed=chosen.seed,
        say=lambda text: print(text, end="\r", flush=True),
    )
    print("\n".join(["jobs on sqlite", *outcome.lines()]), flush=True)
    ok &= outcome.ok
    return 0 if ok else 1


def _completions(chosen: argparse.Namespace, folder: Path) -> int:
    ok = True
    # A file has one writer, so there transactional jobs run one after the other.
    for kind, part in (("postgres", 1.0), ("sqlite", 0.5)):
        print(f"transactional jobs on {kind}")
        place = folder / kind
        place.mkdir(exist_ok=True)
        outcome = completions.run(
            kind,
            place,
            round((chosen.jobs or 5_000) * part),
            faults=chosen.rounds or 60,
            seed=chosen.seed,
            say=lambda text: print(text, end="\r", flush=True),
        )
        print("\n".join(outcome.lines()))
        ok &= outcome.ok
    return 0 if ok else 1


def _flows(chosen: argparse.Namespace, folder: Path) -> int:
    plan = flows.Plan(kills=chosen.kills, seed=chosen.seed)
    ok = True
    with RedisServer(folder / "server", config=DURABLE) as server:
        for name, url in (("sqlite", f"sqlite:///{folder}/flows.db"), ("redis", server.url)):
            place = folder / name
            place.mkdir(exist_ok=True)
            result = flows.run(url, place, plan, say=lambda text: print(text, flush=True))
            print("\n".join([f"on {name}", *result.lines()]), flush=True)
            ok &= result.ok
    return 0 if ok else 1


def _sentinel(chosen: argparse.Namespace, folder: Path) -> int:
    ok = True
    for wait in (0, 1):
        result = redis_failover.run(folder / f"wait{wait}", chosen.rounds or 20, wait=wait)
        print("\n".join(result.lines()), flush=True)
        ok &= not result.strange and (not result.lost or not wait)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
