"""The table of measures is complete, and the page shows it as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from prometheus_client import CollectorRegistry

from goose.metrics import base
from goose.metrics.aggregate import Aggregate
from goose.metrics.catalogue import MEASURES
from goose.metrics.prometheus import Prometheus


def test_every_name_of_the_contract_is_in_the_catalogue() -> None:
    """A name added to `goose.metrics.base` must be described, and one removed must go."""
    names = {value for name, value in vars(base).items() if name.isupper() and type(value) is str}

    assert names == MEASURES.keys()


def test_the_page_lists_the_measures_as_they_are(root: Path) -> None:
    """The table in docs/metrics.md is the one that tools/metrics_table.py writes."""
    path = root / "tools/metrics_table.py"
    spec = importlib.util.spec_from_file_location("metrics_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs/metrics.md").read_text()

    assert module.text(page) == page


def test_both_ways_to_prometheus_use_the_names_of_the_table() -> None:
    """A scrape of an embedded worker and one of a supervisor declare what the page promises."""
    registry = CollectorRegistry()
    Prometheus(registry=registry)
    names = {family.name for family in registry.collect()}
    text = Aggregate().text()

    for measure in MEASURES.values():
        suffix = "_total" if measure.kind == "counter" else ""
        assert measure.prometheus in names
        assert f"# HELP {measure.prometheus}{suffix} {measure.help}\n" in text
