"""The RabbitMQ campaign in its small form; ``make chaos BROKER=rabbitmq`` is the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import rabbitmq_campaign, transactions
from tests.chaos.rabbitmq_faults import NETWORK, SERVER

pytestmark = pytest.mark.long


@pytest.mark.processes
@pytest.mark.timeout(400)
def test_whatever_breaks_every_job_is_accounted_for(own_folder: Path) -> None:
    """All faults of server and network, and of workers, happen to real processes under load."""
    result = rabbitmq_campaign.run(own_folder, rabbitmq_campaign.SMALL)
    report = "\n".join(result.lines())

    assert result.ok, report
    assert {*SERVER, *NETWORK} <= {kind for kind, row in result.overlaps.items() if row["met"]}, (
        report
    )


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_job_exists_if_and_only_if_its_transaction_committed(own_folder: Path) -> None:
    """Through an outbox, whatever is killed on the way; what was sent twice is there twice."""
    outcome = transactions.run(
        own_folder, 300, to="rabbitmq", clients=2, crash_every=4.0, fewest=1, seed=3
    )

    assert outcome.ok, outcome.lines()
