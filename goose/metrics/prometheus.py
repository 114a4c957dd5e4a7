"""Metrics for Prometheus, kept by prometheus-client and scraped over HTTP.

For programs with a `goose.Worker` of their own. ``goose worker`` needs nothing of this: there
the supervisor serves the numbers of all its processes (`goose.metrics.aggregate`).

Measures of Goose are declared when a `Prometheus` is made, so that a scrape shows each
with its help text from the start; those of others at their first value. A measure's name
gets ``goose_`` in front, ``_seconds`` if it is a time and ``_total`` if it is a counter:
``jobs.processed`` is ``goose_jobs_processed_total``. The number of series is bounded
(`goose.metrics.bounds`).
"""

from __future__ import annotations

import logging
import os
import socket
import socketserver
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from goose.errors import ConfigError, MissingDriver
from goose.metrics.base import Tags
from goose.metrics.bounds import MAX_SERIES, Bounds
from goose.metrics.catalogue import BUCKETS, MEASURES, Kind, Measure, measure_of
from goose.metrics.served import address

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.exposition import make_wsgi_app
except ImportError as error:
    raise MissingDriver(
        'Prometheus metrics need prometheus-client; pip install "goose-jobs[prometheus]"'
    ) from error

logger = logging.getLogger("goose.metrics")

_POLL = 0.2
"""Seconds `close` waits for the server's thread at most."""


class Prometheus:
    """Keeps metrics in a registry and, given a port, serves them at ``/metrics``.

    Thread-safe. Counting never waits for a scrape.

    Args:
        url: ``prometheus://host:port``. Without host: all interfaces; without port: nothing
            is served and the application exposes *registry* itself. Port 0 takes a free one.
        registry: Where the measures go. By default the one of prometheus_client itself, so
            that measures of your functions' own are served as well.
        buckets: Upper bounds in seconds, rising.
        max_series: Sets of tag values per measure, at least 1.

    Raises:
        ConfigError: The URL is wrong, the port is in use or forbidden, or the registry has
            Goose's measures already.
    """

    never_blocks = True

    def __init__(
        self,
        url: str = "prometheus://",
        *,
        registry: CollectorRegistry | None = None,
        buckets: Sequence[float] = BUCKETS,
        max_series: int = MAX_SERIES,
    ) -> None:
        host, port = address(url)
        self._registry = REGISTRY if registry is None else registry
        self._buckets = tuple(buckets)
        self._max_series = max_series
        self._lock = threading.Lock()
        self._families: dict[tuple[str, Kind], _Family] = {}
        self._server: _Server | None = None
        try:
            for measure in MEASURES.values():
                self._declare(measure)
            if port is not None:
                self._server = _serve(host, port, self._registry)
        except BaseException:
            self.close()
            raise
        _alive.add(self)

    @property
    def port(self) -> int | None:
        """The port that is served, or None."""
        return None if self._server is None else self._server.server_port

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        self._family(name, "counter", tags).child(tags).inc(value)

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        self._family(name, "gauge", tags).child(tags).set(value)

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* in the histogram *name*."""
        self._family(name, "timing", tags).child(tags).observe(seconds)

    def close(self) -> None:
        """Stop serving and take the measures out of the registry. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self._lock:
            families, self._families = self._families, {}
        for family in families.values():
            self._registry.unregister(family.metric)

    def _forked(self) -> None:
        """Let go of the port in a child, which would keep it from this process's successor."""
        if self._server is not None:
            self._server.socket.close()
            # Its thread is the parent's, so there is nothing here that close() could stop.
            self._server = None

    def _family(self, name: str, kind: Kind, tags: Tags) -> _Family:
        try:
            return self._families[name, kind]
        except KeyError:
            return self._declare(measure_of(name, kind, tags))

    def _declare(self, measure: Measure) -> _Family:
        with self._lock:
            key = (measure.name, measure.kind)
            if key in self._families:
                return self._families[key]
            name = measure.prometheus
            common: dict[str, Any] = {"labelnames": measure.labels, "registry": self._registry}
            try:
                metric: Counter | Gauge | Histogram
                if measure.kind == "counter":
                    metric = Counter(name, measure.help, **common)
                elif measure.kind == "gauge":
                    metric = Gauge(name, measure.help, **common)
                else:
                    metric = Histogram(name, measure.help, buckets=self._buckets, **common)
            except ValueError as error:
                raise ConfigError(
                    f"Prometheus measure {name}: {error}; close the other Prometheus first, "
                    "or pass registry=CollectorRegistry()"
                ) from error
            family = self._families[key] = _Family(metric, measure, self._max_series)
            return family


class _Family:
    """One measure and its series, by tag values."""

    def __init__(self, metric: Any, measure: Measure, max_series: int) -> None:
        self.metric = metric
        self._bounds = Bounds(measure, max_series)
        self._children: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()

    def child(self, tags: Tags) -> Any:
        """Return the series of *tags*; a tag that is missing is empty, others are left out."""
        values = self._bounds.values(tags)
        try:
            return self._children[values]
        except KeyError:
            return self._new_child(values)

    def _new_child(self, values: tuple[str, ...]) -> Any:
        with self._lock:
            if values not in self._children:
                made = self.metric.labels(*values) if values else self.metric
                self._children[values] = made
            return self._children[values]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks DNS for this host's name, which may take for ever.
        socketserver.TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a scrape from %s broke off", client_address, exc_info=sys.exception())


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds a client may be silent, so that idle connections hold no thread."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        logger.debug(format, *args)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _serve(host: str, port: int, registry: CollectorRegistry) -> _Server:
    kind = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, port, make_wsgi_app(registry), kind, handler_class=_Handler)
    except OSError as error:
        raise ConfigError(
            f"Prometheus cannot listen on {host or 'all interfaces'}, port {port}: "
            f"{error.strerror or error}; give another port, for example prometheus://:{port + 100}"
        ) from error
    threading.Thread(
        target=server.serve_forever, args=(_POLL,), name="goose-prometheus", daemon=True
    ).start()
    return server


_alive: weakref.WeakSet[Prometheus] = weakref.WeakSet()


def _after_fork() -> None:
    for prometheus in list(_alive):
        prometheus._forked()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork)
