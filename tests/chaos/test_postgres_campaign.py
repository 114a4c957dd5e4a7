"""The PostgreSQL campaign in its small form; ``make chaos BROKER=postgres`` is the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import postgres_campaign
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
