"""The RabbitMQ campaign in its small form: ``pytest tests/chaos/rabbitmq_small.py``.

Not collected with the others: it restarts a node, which takes longer than all the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import rabbitmq_campaign


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_whatever_breaks_every_job_is_accounted_for(own_folder: Path) -> None:
    """Faults of server and network, and of workers, happen to real processes under load."""
    plan = rabbitmq_campaign.SMALL
    result = rabbitmq_campaign.run(own_folder, plan)
    report = "\n".join(result.lines())

    assert result.ok, report
    assert plan.kinds == {kind for kind, row in result.overlaps.items() if row["met"]}, report
    assert 10 <= len(result.incidents) + len(plan.worker_faults), report
