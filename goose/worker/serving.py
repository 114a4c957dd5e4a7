"""A small HTTP server for whoever asks a supervisor how it is.

It runs on threads of its own and knows nothing of workers: a path is looked up among the
routes, and what is found there is called and shown. Probes and scrapes are short, so a client
that is silent is let go, and of more than a few at once the last are turned away.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, TypeAlias

from goose.errors import ConfigError

logger = logging.getLogger("goose.worker.host")

PATIENCE = 5.0
"""Seconds a client may be silent."""
AT_ONCE = 32
"""Clients served at once."""

Answer: TypeAlias = tuple[int, str, str]
"""Status, content type and text."""
Routes: TypeAlias = Mapping[str, Callable[[], Answer]]


class Server:
    """Serves *routes* on one port until `close`.

    Args:
        host: Empty for all interfaces.
        port: 0 takes a free one.

    Raises:
        ConfigError: The port is in use or forbidden.
    """

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        kind = _Server6 if ":" in host else _Server
        handler = type("Handler", (_Handler,), {"routes": routes})
        try:
            self._server = kind((host, port), handler)
        except OSError as error:
            raise ConfigError(
                f"nothing can be served on {host or 'all interfaces'}, port {port}: "
                f"{error.strerror or error}; give another port"
            ) from error
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="goose-http", daemon=True
        ).start()

    def close(self) -> None:
        """Serve nobody any more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.Semaphore(AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve on a thread, if there is a place for one more."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, then give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note that a client went away."""
        logger.debug("a request from %s broke off", client_address, exc_info=sys.exception())


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server_version = "goose"
    sys_version = ""
    routes: ClassVar[Routes] = {}

    def do_GET(self) -> None:
        """Answer by the route, with a body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer by the route, without a body."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            status, kind, text = 404, "text/plain", f"there are: {', '.join(self.routes)}\n"
        else:
            status, kind, text = route()
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log at debug level."""
        logger.debug(format, *args)
