"""The functions that run in the background: plain functions of a module."""

from datetime import date
from decimal import Decimal
from pathlib import Path


def invoice(customer: str, amount: Decimal, *, due: date, folder: Path) -> None:
    """Write a bill; arguments arrive as what they were, not as text."""
    text = f"{customer} owes {amount.quantize(Decimal('0.01'))} by {due:%d %B %Y}\n"
    (folder / f"{customer}.txt").write_text(text)


async def remind(customer: str, folder: Path) -> None:
    """Async functions run beside the others, hundreds at once."""
    (folder / f"{customer}-reminder.txt").write_text(f"Dear {customer}, please pay.\n")
