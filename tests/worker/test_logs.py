"""Lines of a worker's log cannot be steered by what a job says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from goose.jobs import Envelope
from goose.worker.logs import TextFormatter
from tests.worker.engine_kit import Bench, job, write_app


def test_control_characters_of_a_job_do_not_reach_the_terminal() -> None:
    """Escape sequences in an error's text are shown, not sent."""
    record = logging.LogRecord(
        "goose.worker", logging.ERROR, "f.py", 1, "failed: %s", ("\x1b[2Jgone\r\x9b1m\tkept",), None
    )
    line = TextFormatter("worker 1").format(record)

    assert not {"\x1b", "\r", "\x9b"} & set(line)
    assert line.endswith("failed: \\x1b[2Jgone\\x0d\\x9b1m\tkept")


NAMES = ("job_id", "function", "queue", "attempt")


def test_every_record_about_a_job_has_its_fields(
    own_folder: Path, importable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever becomes of a job, what is said about it can be found by its id; arguments are not said."""
    caplog.set_level(logging.INFO, "goose")
    handlers = list(logging.getLogger("goose").handlers)
    write_app(importable)
    bench = Bench(max_crashes=2)
    made = [
        job("fail"),
        job("fail", retry={"max_retries": 0}),
        job("bury", "reason"),
        job("skip"),
        job("postpone", 5.0),
        job("strict", "secret-argument"),
        job("unknown", "secret-argument"),
        job("note", crashes=2),
        job("note", retry={"max_retries": "nonsense"}),
        job("fail", retry={"backoff": "nowhere:nothing", "on_error": "nowhere:nothing"}),
    ]
    bench.enqueue(*made)
    bench.broker.enqueue([Envelope("raw", "default", b"{secret-argument")])
    bench.round()

    about = [
        record
        for record in caplog.records
        if any(one.id in record.getMessage() for one in made) or "raw" in record.getMessage()
    ]
    assert len(about) >= len(made)
    for record in about:
        missing = [name for name in NAMES if not hasattr(record, name)]
        assert missing == (["function", "attempt"] if record.job_id == "raw" else []), record.msg  # type: ignore[attr-defined]
    assert "secret-argument" not in caplog.text
    assert handlers == logging.getLogger("goose").handlers
