"""Goose: background jobs for Python, on any broker, with nothing lost.

::

    import goose

    goose.enqueue(send_email, "ada@example.com", subject="Hi")

Every public name is here. Importing this connects to nothing and loads no broker, no
pydantic and no asyncio; those come with their first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from goose._edges import After, after
from goose.calls import Call, call, register_type
from goose.circuits import Circuit
from goose.clients import Client, default
from goose.errors import (
    ArgumentError,
    BatchError,
    BrokerError,
    BrokerUnavailable,
    Bury,
    CallError,
    ConfigError,
    Control,
    EnqueueError,
    FlowError,
    FunctionError,
    GooseError,
    JobFailed,
    JobTimeout,
    MissingDriver,
    NewerVersion,
    PayloadTooLarge,
    Postpone,
    ResultTimeout,
    ResultUnavailable,
    SessionLost,
    SignatureMismatch,
    Skip,
    StoreError,
    Undecodable,
    UnknownFunction,
    Unsupported,
)
from goose.jobs import Job
from goose.options import job
from goose.retries import Exponential, Retry
from goose.settings import Settings, configure

if TYPE_CHECKING:
    from goose import aio
    from goose.features.limits.values import Limit
    from goose.middleware.base import Execution, current
    from goose.worker.embedded import Worker

batch = default.batch
chain = default.chain
cron = default.cron
enqueue = default.enqueue
enqueue_in = default.enqueue_in
enqueue_at = default.enqueue_at
enqueue_batch = default.enqueue_batch
enqueue_many = default.enqueue_many
flow = default.flow
submit = default.submit
using = default.using

__version__ = "0.1.0"

# Where to find what only some programs need; see `__getattr__`.
_LATER = {
    "Execution": "goose.middleware.base",
    "Limit": "goose.features.limits.values",
    "Worker": "goose.worker.embedded",
    "aio": "goose.aio",
    "current": "goose.middleware.base",
}


if not TYPE_CHECKING:  # to a type checker it would make every misspelt name an object

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module 'goose' has no attribute {name!r}")
        from importlib import import_module

        module = import_module(_LATER[name])
        found = module if name == "aio" else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


__all__ = [
    "After",
    "ArgumentError",
    "BatchError",
    "BrokerError",
    "BrokerUnavailable",
    "Bury",
    "Call",
    "CallError",
    "Circuit",
    "Client",
    "ConfigError",
    "Control",
    "EnqueueError",
    "Execution",
    "Exponential",
    "FlowError",
    "FunctionError",
    "GooseError",
    "Job",
    "JobFailed",
    "JobTimeout",
    "Limit",
    "MissingDriver",
    "NewerVersion",
    "PayloadTooLarge",
    "Postpone",
    "ResultTimeout",
    "ResultUnavailable",
    "Retry",
    "SessionLost",
    "Settings",
    "SignatureMismatch",
    "Skip",
    "StoreError",
    "Undecodable",
    "UnknownFunction",
    "Unsupported",
    "Worker",
    "__version__",
    "after",
    "aio",
    "batch",
    "call",
    "chain",
    "configure",
    "cron",
    "current",
    "enqueue",
    "enqueue_at",
    "enqueue_batch",
    "enqueue_in",
    "enqueue_many",
    "flow",
    "job",
    "register_type",
    "submit",
    "using",
]
