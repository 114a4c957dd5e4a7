"""Jobs of transactions, in the small form; ``make chaos BROKER=transactions`` is the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import transactions

pytestmark = pytest.mark.long


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("to", ["postgres", "redis"])
def test_a_job_exists_if_and_only_if_its_transaction_committed(own_folder: Path, to: str) -> None:
    """Whatever is killed in the middle of business, and on the way to the broker, there is no exception."""
    outcome = transactions.run(own_folder, 400, to=to, clients=2, crash_every=2.0)

    assert outcome.ok, outcome.lines()
    assert 0 == outcome.twice, "both keep one of two copies"
