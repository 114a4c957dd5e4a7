"""Words for numbers, in what is logged and shown."""

from __future__ import annotations


def several(count: int, what: str = "job") -> str:
    """Return *count* and the word for it: ``1 job``, ``2,000 jobs``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
