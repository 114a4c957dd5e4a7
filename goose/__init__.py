"""Goose: background jobs for Python, on any broker, with nothing lost.

::

    import goose

    goose.enqueue(send_email, "ada@example.com", subject="Hi")

Every public name is here. Importing this imports nothing else: each name is fetched from its
module at its first use, and is an ordinary attribute from then on. So a program pays for what
it uses, and a probe that asks for little (``goose health``) is quick.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # as that of `typing`, whose import would be most of what this costs
if TYPE_CHECKING:  # what type checkers and editors see; `_HOMES` says the same to Python
    from goose import aio
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
    from goose.features.limits.values import Limit
    from goose.jobs import Job
    from goose.middleware.base import Execution, current
    from goose.options import job
    from goose.retries import Exponential, Retry
    from goose.settings import Settings, configure
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
else:  # to a type checker `__getattr__` would make every misspelt name an object
    _HOMES = {
        "": "aio brokers calls clients errors jobs options retries settings",
        "_edges": "After after",
        "calls": "Call call register_type",
        "circuits": "Circuit",
        "clients": "Client",
        "clients:default": "batch chain cron enqueue enqueue_at enqueue_batch enqueue_in "
        "enqueue_many flow submit using",
        "errors": "ArgumentError BatchError BrokerError BrokerUnavailable Bury CallError "
        "ConfigError Control EnqueueError FlowError FunctionError GooseError JobFailed JobTimeout "
        "MissingDriver "
        "NewerVersion PayloadTooLarge Postpone ResultTimeout ResultUnavailable SessionLost "
        "SignatureMismatch Skip StoreError Undecodable UnknownFunction Unsupported",
        "features.limits.values": "Limit",
        "jobs": "Job",
        "middleware.base": "Execution current",
        "options": "job",
        "retries": "Exponential Retry",
        "settings": "Settings configure",
        "worker.embedded": "Worker",
    }
    _HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module 'goose' has no attribute {name!r}")
        module, _, inside = _HOME[name].partition(":")
        if not module:
            return import_module(f"goose.{name}")
        found: object = import_module(f"goose.{module}")
        for part in (inside, name):
            found = getattr(found, part) if part else found
        # The next look finds it here. Two threads may both come this way: they find the same.
        return globals().setdefault(name, found)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME})


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
