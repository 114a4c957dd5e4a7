"""The campaign of flows in its small form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import flows


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_flows_survive_workers_that_are_killed(own_folder: Path) -> None:
    """Real workers on one SQLite file are killed: every job runs after its parents, none is wrong."""
    plan = flows.Plan(flows=6, nodes=15, kills=4, seed=2)
    result = flows.run(f"sqlite:///{own_folder}/flows.db", own_folder, plan)

    assert result.ok, "\n".join(result.lines())
    assert result.kills > 0
