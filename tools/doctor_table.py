"""Writes the table of findings in docs/doctor.md from `goose.cli.findings`.

Run it after a change to the findings; a test fails while the page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from goose.cli.findings import everything

PAGE = Path(__file__).parent.parent / "docs" / "doctor.md"
HEAD = ["| code | | found | what it means | fix |", "|---|---|---|---|---|"]


def text(page: str) -> str:
    """Return *page* with the table as it should be."""
    before, rest = page.split(HEAD[0], 1)
    after = rest.split("\n\n", 1)[1]
    rows = [
        f"| `{kind.code}` | {kind.severity} | {kind.title} | {kind.meaning} | {kind.fix} |"
        for kind in everything()
    ]
    return before + "\n".join([*HEAD, *rows]) + "\n\n" + after


if __name__ == "__main__":
    PAGE.write_text(text(PAGE.read_text("utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
