"""A worker inside a program of the user's own: tests, scripts, a web server in development.

It runs the same engine as ``goose worker``, on threads of this process, and sends its own
heartbeats. What it cannot do, since nobody stands outside it: end a job that never comes back
to the interpreter (`hard_timeout` is refused), know afterwards what it ran when the process
died (its jobs become suspects), or keep beating while C code holds the interpreter's lock for
longer than `ttl`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from goose import brokers, metrics, middleware, plugins, settings
from goose.brokers import namespaced
from goose.brokers.base import Broker, Session, Share
from goose.calls import Offer
from goose.errors import ConfigError
from goose.metrics.base import Metrics
from goose.middleware.base import Middleware
from goose.settings import Settings
from goose.stores import OnDemand
from goose.worker import crons
from goose.worker.config import WorkerConfig
from goose.worker.follower import follower
from goose.worker.outboxes import relay_of
from goose.worker.resources import Resource
from goose.worker.runner import Runner
from goose.worker.standing import RunnerStatistics

logger = logging.getLogger("goose.worker")


class Worker:
    """Runs jobs on threads of this process, from `start` (or ``with``) until `stop`.

    What is left out comes from the configuration, as for ``goose worker``. May be started
    again after a stop. `stop` may be called from any thread but not from a job.

    Args:
        broker: URL or broker; one that was given as an object is not closed.
        allow: Modules whose functions may run, packages with their submodules.
        queues: Names in strict order, or a mapping of names to weights.
        concurrency: Sync functions at once, each on a thread.
        async_concurrency: Async functions at once; 10 times *concurrency* if left out.
        middleware: Around every execution, outermost first; objects or ``module:name``.
        metrics: Backends to count into; objects, URLs or ``module:name``.
        resources: Context managers, sync or async, or factories of some; opened at the start
            and reached by ``goose.current().resources[Type]``.
        grace: Seconds running jobs may go on after a `stop` without a grace of its own.
        ttl: Seconds of silence after which this worker counts as dead.
        hard_timeout: Not possible here; `Unsupported` is raised at the start.
        slow_after: Seconds after which a running job is logged with its stack.

    Raises:
        ConfigError: A value is wrong, or a module of *allow* cannot be imported.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        allow: str | Iterable[str] | None = None,
        queues: str | Iterable[str | Share] | Mapping[str, int] | None = None,
        concurrency: int | None = None,
        async_concurrency: int | None = None,
        middleware: Sequence[str | Middleware] | None = None,
        metrics: Sequence[str | Metrics] | None = None,
        resources: Sequence[str | Resource] | None = None,
        grace: float | None = None,
        ttl: float | None = None,
        hard_timeout: float | None = None,
        slow_after: float | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "broker": broker,
            "allow": allow,
            "queues": queues,
            "concurrency": concurrency,
            "async_concurrency": async_concurrency,
            "middleware": middleware,
            "metrics": metrics,
            "resources": resources,
            "grace": grace,
            "ttl": ttl,
            "hard_timeout": hard_timeout,
            "slow_after": slow_after,
        }
        named = {name: value for name, value in given.items() if value is not None}
        self._settings = settings.with_given(settings.active(), named, "Worker(): ")
        if not self._settings.allow:
            raise ConfigError(
                "Worker(): allow is empty, so nothing may run; name the modules of your functions, "
                "for example allow=['app.tasks']"
            )
        self._offer = Offer(self._settings.allow)
        self._offer.load()
        self._owns_broker = isinstance(self._settings.broker, str)
        self._broker: Broker | None = None
        self._runner: Runner | None = None
        self._backends: list[Metrics] = []
        """What this worker made from names, and so has to close."""

    def start(self) -> None:
        """Begin to take jobs; returns once the session is open.

        Raises:
            BrokerError: The broker cannot be reached.
            ConfigError: A middleware, backend or resource cannot be had, or a middleware is
                async where no function is.
            RuntimeError: It runs already.
            Unsupported: A `hard_timeout` is set.
        """
        if self._runner is not None:
            raise RuntimeError("this worker runs already; stop it first")
        chosen = self._settings
        self._broker = broker = brokers.connect(chosen.broker)
        store = store_of(chosen, broker, chosen.broker)
        try:
            runner = Runner(
                broker,
                self._offer,
                config_of(chosen),
                middleware=[middleware.connect(spec) for spec in chosen.middleware],
                metrics=[self._backend(spec) for spec in chosen.metrics],
                resources=[connect_resource(spec) for spec in chosen.resources],
                firing=crons.firing(broker, self._offer, chosen, store),
                store=store,
                follower=follower(store),
                circuits=chosen.circuit,
                relay=relay_of(broker, chosen, chosen.broker),
                # Another each time: how far the epochs of the last one went is not known here.
                session=Session(str(uuid.uuid4())),
            )
            runner.start()
        except BaseException:
            self._close()
            raise
        self._runner = runner

    def _backend(self, spec: str | Metrics) -> Metrics:
        backend = metrics.connect(spec)
        if metrics.is_made_for(spec, backend):
            self._backends.append(backend)
        return backend

    def stop(self, grace: float | None = None) -> bool:
        """Stop taking jobs, give back what was not started, and wait for what runs.

        Args:
            grace: Seconds running jobs may go on; the worker's own `grace` if left out.

        Returns:
            Whether nothing runs any more. A job that could not be interrupted stays this
            session's until its thread ends or the session expires.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return True
        done = runner.stop(self._settings.grace if grace is None else grace)
        self._close()
        return done

    def _close(self) -> None:
        """Close what was made from URLs and names; what was given as an object stays open."""
        backends, self._backends = self._backends, []
        for backend in backends:
            close = getattr(backend, "close", None)
            if close is None:
                continue
            try:
                close()
            except Exception:
                logger.exception("metrics backend %s failed to close", type(backend).__name__)
        if self._owns_broker and self._broker is not None:
            self._broker.close()

    def statistics(self) -> RunnerStatistics:
        """Return the numbers since the last start.

        Raises:
            RuntimeError: It does not run.
        """
        return self._running().statistics()

    def is_empty(self) -> bool:
        """Say whether nothing is ready or running in its queues; scheduled jobs do not count.

        Raises:
            BrokerError: The broker could not say.
            RuntimeError: It does not run.
        """
        return self._running().is_empty()

    def _running(self) -> Runner:
        if self._runner is None:
            raise RuntimeError("this worker does not run; start it first")
        return self._runner

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def config_of(chosen: Settings) -> WorkerConfig:
    """Return the part of the settings that one worker process is told."""
    return WorkerConfig(
        queues=chosen.worker_queues,
        concurrency=chosen.concurrency,
        async_concurrency=chosen.async_concurrency,
        grace=chosen.grace,
        ttl=chosen.ttl,
        hard_timeout=chosen.hard_timeout,
        stall_limit=chosen.stall_limit,
        slow_after=chosen.slow_after,
        max_crashes=chosen.max_crashes,
        max_bytes=chosen.max_bytes,
    )


def store_of(chosen: Settings, broker: Broker, broker_url: object) -> OnDemand:
    """Return the store of a process that takes jobs from *broker*, which was named by *broker_url*."""
    url = namespaced(chosen.store, chosen.namespace)
    return OnDemand(broker, url, broker_url=broker_url)


def connect_resource(spec: str | Resource) -> Resource:
    """Return the resource *spec* describes: ``module:name``, or the resource itself.

    Raises:
        ConfigError: It cannot be imported.
    """
    found: Resource = plugins.load(spec, kind="resource") if isinstance(spec, str) else spec
    return found
