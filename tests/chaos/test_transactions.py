"""Jobs of transactions, in the small form; ``make chaos BROKER=transactions`` is the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import completions, sqlite_transactions, transactions

pytestmark = pytest.mark.long


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("to", ["postgres", "redis"])
def test_a_job_exists_if_and_only_if_its_transaction_committed(own_folder: Path, to: str) -> None:
    """Whatever is killed in the middle of business, and on the way to the broker, there is no exception."""
    outcome = transactions.run(own_folder, 400, to=to, clients=2, crash_every=2.0)

    assert outcome.ok, outcome.lines()
    assert 0 == outcome.twice, "both keep one of two copies"


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_the_same_on_sqlite(own_folder: Path) -> None:
    """Programs are killed in the middle of business on one file, and no exception is found."""
    outcome = sqlite_transactions.run(own_folder, 300, clients=2)

    assert outcome.ok, outcome.lines()
    assert 0 == outcome.twice


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_transactional_jobs_have_their_effect_once(own_folder: Path, kind: str) -> None:
    """Workers die, and go on as zombies, at any instant: no effect is missing, none is there twice."""
    outcome = completions.run(kind, own_folder, 100, faults=4, seed=5)

    assert outcome.ok, outcome.lines()
