"""Lines of a worker's log cannot be steered by what a job says."""

from __future__ import annotations

import logging

from goose.worker.logs import TextFormatter


def test_control_characters_of_a_job_do_not_reach_the_terminal() -> None:
    """Escape sequences in an error's text are shown, not sent."""
    record = logging.LogRecord(
        "goose.worker", logging.ERROR, "f.py", 1, "failed: %s", ("\x1b[2Jgone\r\x9b1m\tkept",), None
    )
    line = TextFormatter("worker 1").format(record)

    assert not {"\x1b", "\r", "\x9b"} & set(line)
    assert line.endswith("failed: \\x1b[2Jgone\\x0d\\x9b1m\tkept")
