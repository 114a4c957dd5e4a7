"""Transactional functions of a fault campaign: each run writes two rows, or none."""

from __future__ import annotations

import time

import goose

_PATIENT = goose.Retry(max_retries=None, backoff=[0.05, 0.1, 0.5])


@goose.job(transactional=True, retry=_PATIENT)
def pay(name: str, seconds: float) -> None:
    """Write one row, take *seconds*, write the other."""
    connection = goose.current().connection
    connection.execute(f"INSERT INTO effects VALUES ('{name}', 'first')")
    time.sleep(seconds)
    connection.execute(f"INSERT INTO effects VALUES ('{name}', 'second')")
