"""A pipeline: fetch pages, count their words, add up the counts. Each step enqueues the next.

The functions know nothing of each other, and nothing of Goose; what follows what is said by a
middleware. Run it from this folder::

    python -m dag                                       # enqueue the first step
    goose worker dag --middleware dag:pipeline --until-empty

           ┌─ count ──┐
    fetch ─┼─ count ──┼─ report
           └─ count ──┘
"""

from __future__ import annotations

from pathlib import Path

import goose
from goose.middleware.pipeline import Pipeline

PAGES = {"/a": "to be or not to be", "/b": "to enqueue", "/c": ""}


def fetch(site: str) -> dict[str, str]:
    """Return the pages of a site by their paths."""
    return {site + path: text for path, text in PAGES.items()}


def count(page: str, text: str) -> tuple[str, int]:
    """Return how many words a page has."""
    return page, len(text.split())


def report(page: str, words: int) -> None:
    """Write down what was found."""
    with Path("report.txt").open("a") as lines:
        lines.write(f"{page} {words}\n")


pipeline = Pipeline(goose.Client())
# One job for each page; what a step is given comes from the result of the one before …
pipeline.after(fetch, count, args=lambda execution: execution.result.items())
# … and what has nothing to follow, an empty page for example, ends there.
pipeline.after(count, report, args=lambda e: [e.result] if e.result[1] else [])


if __name__ == "__main__":
    goose.enqueue(fetch, "https://example.com")
