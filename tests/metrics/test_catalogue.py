"""The table of measures is complete, and the page shows it as it is."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from goose.metrics import base
from goose.metrics.catalogue import MEASURES
from goose.metrics.prometheus import Prometheus


def test_every_name_of_the_contract_is_in_the_catalogue() -> None:
    """A name added to `goose.metrics.base` must be described, and one removed must go."""
    names = {value for name, value in vars(base).items() if name.isupper() and type(value) is str}

    assert names == MEASURES.keys()


def test_the_page_lists_the_measures_as_they_are(root: Path) -> None:
    """docs/metrics.md has one row for each, in order, with the name a scrape shows."""
    registry = CollectorRegistry()
    Prometheus(registry=registry)
    scraped = {family.documentation: family for family in registry.collect()}
    rows = [
        f"| `{one.name}` | {one.kind} | {one.unit} | {', '.join(one.tags)} | {one.help} "
        f"| `{scraped[one.help].name}{'_total' if one.kind == 'counter' else ''}` |"
        for one in MEASURES.values()
    ]
    page = (root / "docs/metrics.md").read_text()

    table = page.partition("## What is measured")[2].partition("Everything is counted")[0]
    assert rows == table.strip().splitlines()[2:]
