"""The PostgreSQL campaign in its small form; ``make chaos BROKER=postgres`` is the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import (
    completions,
    postgres_campaign,
    postgres_transactions,
    sqlite_transactions,
)
from tests.chaos.postgres_faults import NETWORK, SERVER


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_whatever_breaks_every_job_is_accounted_for(own_folder: Path) -> None:
    """All faults of server and network, and of workers, happen to real processes under load."""
    result = postgres_campaign.run(own_folder, postgres_campaign.SMALL)
    report = "\n".join(result.lines())

    assert result.ok, report
    assert {*SERVER, *NETWORK} <= {kind for kind, row in result.overlaps.items() if row["met"]}, (
        report
    )


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_a_job_exists_if_and_only_if_its_transaction_committed(own_folder: Path) -> None:
    """Clients, connections and the server are killed in the middle of business, and no exception is found."""
    outcome = postgres_transactions.run(own_folder, 500, clients=2, crash_every=3.0)

    assert outcome.ok, outcome.lines()
    assert outcome.crashes >= 2 <= outcome.clients_killed, outcome.lines()


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_the_same_on_sqlite(own_folder: Path) -> None:
    """Programs are killed in the middle of business on one file, and no exception is found."""
    outcome = sqlite_transactions.run(own_folder, 300, clients=2)

    assert outcome.ok, outcome.lines()
    assert outcome.clients_killed >= 2, outcome.lines()


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_transactional_jobs_have_their_effect_once(own_folder: Path, kind: str) -> None:
    """Workers die, and go on as zombies, at any instant: no effect is missing, none is there twice."""
    outcome = completions.run(kind, own_folder, 100, faults=4, seed=5)

    assert outcome.ok, outcome.lines()
