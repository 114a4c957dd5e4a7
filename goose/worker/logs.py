"""Sets up the standard library's logging, for the processes that ``goose worker`` starts.

Goose logs through ``logging.getLogger("goose.…")`` like any library and configures nothing
in a program of the user's own. The command line owns its processes, so it does: one line per
record on standard error, as text or as JSON, with the running job on it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from goose.middleware.log_context import ContextFilter

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
}
"""A job's error text may hold anything; none of it may steer the terminal that shows the log."""
_OUTSIDE = {"job_id": "-", "function": "-", "queue": "-", "attempt": 0}


class TextFormatter(logging.Formatter):
    """One readable line, with the job's id while one runs."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {process} %(name)s: %(message)s%(job)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole record, a traceback included, with control characters escaped."""
        return super().format(record).translate(_CONTROL)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line for *record*."""
        job_id = getattr(record, "job_id", "-")
        hidden = job_id == "-" or job_id in record.getMessage()
        record.__dict__["job"] = "" if hidden else f" [job {job_id}]"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: at, level, logger, process, message, and what else it has."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the object for *record*; values that are not JSON are shown as text."""
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and _OUTSIDE.get(name) != value:
                fields.setdefault(name, value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def set_up(level: str, log_format: str, process: str) -> None:
    """Log to standard error from now on, in place of what was set up before.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        log_format: ``text`` or ``json``.
        process: What lines call this process.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else TextFormatter(process))
    handler.addFilter(ContextFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
