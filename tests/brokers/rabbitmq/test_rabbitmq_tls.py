"""RabbitMQ over TLS, with a certificate authority of the test's own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from goose.brokers.base import Session, Share
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from tests.servers.certificates import Authority, Pair
from tests.servers.rabbitmq import RabbitServer, free_port

pytestmark = pytest.mark.timeout(240)


class TlsServer(RabbitServer):
    """A node that speaks TLS too, and talks only to those whose certificate its authority signed."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certificates", "goose tests")
        self.client: Pair = self.authority.sign("client")
        self.tls_port = free_port()
        own = self.authority.sign("server", alternatives=["DNS:localhost"])
        super().__init__(
            folder,
            config=(
                f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
                f"ssl_options.cacertfile = {self.authority.certificate}",
                f"ssl_options.certfile = {own.certificate}",
                f"ssl_options.keyfile = {own.key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
            ),
        )

    def connect(self, host: str = "localhost", **options: object) -> RabbitMQBroker:
        """Return a broker that shows the client's certificate and trusts the authority."""
        known = {
            "tls_ca": str(self.authority.certificate),
            "tls_cert": str(self.client.certificate),
            "tls_key": str(self.client.key),
            "namespace": uuid.uuid4().hex,
            **options,
        }
        given = {name: value for name, value in known.items() if value is not None}
        return RabbitMQBroker(f"amqps://guest:guest@{host}:{self.tls_port}", **given)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with TlsServer(tmp_path_factory.mktemp("rabbitmq-tls")) as made:
        yield made


def round_trip(broker: RabbitMQBroker) -> list[str]:
    """Store a job and a long one, take both, look into the queue, and settle them."""
    try:
        broker.enqueue([Envelope("job", "mail", b"{}"), Envelope("long", "mail", b"x" * 500_000)])
        taken = []
        deadline = time.monotonic() + 20
        while len(taken) < 2 and time.monotonic() < deadline:
            taken += broker.dequeue(Session("worker"), [Share("mail")], limit=9, wait=1.0)
        assert [] == list(broker.ack(taken))
        assert [500_000] == [len(d.envelope.body) for d in taken if d.envelope.id == "long"]
        assert ["mail"] == broker._queues()
        return sorted(delivery.envelope.id for delivery in taken)
    finally:
        broker.close()


def test_jobs_travel_over_tls(server: TlsServer) -> None:
    """With an authority to trust and a certificate of its own, a client does all it does."""
    assert ["job", "long"] == round_trip(server.connect())


@pytest.mark.parametrize(("host", "trusted"), [("localhost", False), ("127.0.0.1", True)])
def test_what_cannot_be_trusted_is_refused(server: TlsServer, host: str, trusted: bool) -> None:
    """An unknown authority, or a name the certificate is not for, is refused at once, with advice."""
    known = {} if trusted else {"tls_ca": None}
    broker = server.connect(host, **known)
    before = time.monotonic()
    with pytest.raises(BrokerError, match="tls_ca") as caught:
        broker.enqueue([Envelope("job", "mail", b"{}")])
    broker.close()

    assert not isinstance(caught.value, BrokerUnavailable)
    assert time.monotonic() - before < broker.options.connect_timeout


def test_trust_can_be_given_up(server: TlsServer) -> None:
    """With tls_verify off any certificate will do."""
    broker = server.connect("127.0.0.1", tls_ca=None, tls_verify=False)

    assert ["job", "long"] == round_trip(broker)


def test_a_client_without_its_certificate_is_told(server: TlsServer) -> None:
    """A server that wants to see a certificate and gets none takes no job."""
    broker = server.connect(tls_cert=None, tls_key=None, timeout=3.0, connect_timeout=1.0)
    with pytest.raises(BrokerError):
        broker.enqueue([Envelope("job", "mail", b"{}")])
    broker.close()
