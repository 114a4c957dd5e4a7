"""Reads what functions of the user's own keep in prometheus-client's default registry.

Only if somebody has imported that package: nothing here does.
"""

from __future__ import annotations

import sys
from typing import Any


def families() -> list[Any] | None:
    """Return the registry's families as `Aggregate.foreign` takes them; None if there is none."""
    client = sys.modules.get("prometheus_client")
    registry = getattr(client, "REGISTRY", None)
    if registry is None:
        return None
    return [
        [
            family.name,
            family.type,
            family.documentation,
            [
                [sample.name, sample.labels, sample.value]
                for sample in family.samples
                if not sample.name.endswith("_created")
            ],
        ]
        for family in registry.collect()
        # Goose's own are there when a `Prometheus` was made by hand; the supervisor has them.
        if not family.name.startswith("goose_")
    ]
