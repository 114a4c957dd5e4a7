"""The page that compares brokers says what their classes say."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_the_page_of_capabilities_is_what_the_brokers_are(root: Path) -> None:
    """docs/capabilities.md is what tools/broker_table.py writes; run that after a change."""
    path = root / "tools/broker_table.py"
    spec = importlib.util.spec_from_file_location("broker_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (root / "docs/capabilities.md").read_text()

    assert module.text(page) == page
