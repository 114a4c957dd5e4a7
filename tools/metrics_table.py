"""Writes the table of measures in docs/metrics.md from `goose.metrics.catalogue`.

Run it after a change to the catalogue; a test fails while the page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from goose.metrics.catalogue import MEASURES, Measure

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
HEAD = [
    "| name | kind | unit | tags | meaning | in Prometheus |",
    "|---|---|---|---|---|---|",
]


def row(measure: Measure) -> str:
    """Return one line of the table."""
    shown = measure.prometheus + ("_total" if measure.kind == "counter" else "")
    cells = [f"`{measure.name}`", measure.kind, measure.unit, ", ".join(measure.tags), measure.help]
    return f"| {' | '.join([*cells, f'`{shown}`'])} |"


def text(page: str) -> str:
    """Return *page* with the table as it should be."""
    before, rest = page.split(HEAD[0], 1)
    after = rest.split("\n\n", 1)[1]
    table = [*HEAD, *(row(measure) for measure in MEASURES.values())]
    return before + "\n".join(table) + "\n\n" + after


if __name__ == "__main__":
    PAGE.write_text(text(PAGE.read_text("utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
