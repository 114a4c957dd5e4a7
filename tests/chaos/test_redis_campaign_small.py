"""The fault campaign on Redis in its small form: every kind once that needs no long wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import redis_campaign, redis_failover
from tests.chaos.redis_faults import NETWORK, SERVER

pytestmark = pytest.mark.long


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_whatever_breaks_every_job_is_accounted_for(own_folder: Path) -> None:
    """All faults of server and network, and of workers, happen to real processes under load."""
    result = redis_campaign.run(own_folder, redis_campaign.SMALL)
    report = "\n".join(result.lines())

    assert result.ok, report
    assert {*SERVER, *NETWORK} <= {kind for kind, row in result.overlaps.items() if row["met"]}, (
        report
    )


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_with_a_replica_confirming_a_failover_loses_nothing(own_folder: Path) -> None:
    """Two masters die under load, one of them cut off from its replica; nothing acknowledged is gone."""
    result = redis_failover.run(own_folder, 2, wait=1)
    report = "\n".join(result.lines())

    assert ([], []) == (result.lost, result.strange), report
