"""The RabbitMQ campaign in its small form: ``pytest tests/chaos/rabbitmq_small.py``.

Not collected with the others: it restarts a node twice, which takes longer than all the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import rabbitmq_campaign
from tests.chaos.rabbitmq_faults import NETWORK, SERVER


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
