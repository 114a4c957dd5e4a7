"""TLS to a real node: certificates are verified, and what does not fit is said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerError
from goose.jobs import Envelope
from tests.servers.certificates import Authority, Pair
from tests.servers.ports import free_port
from tests.servers.rabbitmq import RabbitServer


@dataclass
class Secure:
    """A node that speaks TLS, for ``localhost`` alone, and asks for certificates too."""

    port: int
    authority: Authority
    client: Pair
    stranger: Authority

    def url(self, *, host: str = "localhost", user: str = "guest:guest", **query: object) -> str:
        """Return a URL with all that is needed, but for what *query* says otherwise."""
        known: dict[str, object] = {
            "tls_ca": self.authority.certificate,
            "tls_cert": self.client.certificate,
            "tls_key": self.client.key,
            "namespace": uuid.uuid4().hex,
            "timeout": 4,
        }
        asked = "&".join(f"{name}={said}" for name, said in (known | query).items() if said)
        return f"amqps://{user}@{host}:{self.port}?{asked}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """The node, its authority, and one that it does not know."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "ca", "Goose"), Authority(folder / "other", "Other")
    own, port = authority.sign("server", alternatives=["DNS:localhost"]), free_port()
    config = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {authority.certificate}",
        f"ssl_options.certfile = {own.certificate}",
        f"ssl_options.keyfile = {own.key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    )
    with RabbitServer(folder / "server", config=config):
        yield Secure(port, authority, authority.sign("client"), stranger)


def refused(url: str, match: str) -> None:
    """See that a first call over *url* fails in time, by words that *match*."""
    with closing(RabbitMQBroker(url)) as broker, pytest.raises(BrokerError, match=match):
        broker.enqueue([Envelope("a", "mail", b"{}")])


def test_jobs_pass_through_a_verified_connection(secure: Secure) -> None:
    """Enqueue, a wait that ends with the job, a settle and a count, all over TLS."""
    with closing(RabbitMQBroker(secure.url())) as broker:
        broker.enqueue([Envelope("a", "mail", b"{}")])
        lent = broker.dequeue(Session("tls"), [Share("mail")], limit=1, wait=20)
        assert ["a"] == [delivery.envelope.id for delivery in lent]
        assert [] == list(broker.ack(lent))
        assert 0 == broker.count(State.READY)


def test_another_authority_is_refused(secure: Secure) -> None:
    """A node whose certificate nobody trusted has signed is refused, and the option is named."""
    refused(secure.url(tls_ca=secure.stranger.certificate), "certificate.*tls_ca")
    refused(secure.url(tls_ca=None), "certificate.*tls_ca")


def test_another_name_is_refused(secure: Secure) -> None:
    """A certificate for another host is refused, even by the right authority."""
    refused(secure.url(host="127.0.0.1"), "name.*the server as the certificate does")


def test_a_missing_client_certificate_is_named(secure: Secure) -> None:
    """Where the node asks for a certificate and there is none, the error names the options."""
    refused(secure.url(tls_cert=None, tls_key=None), "tls_cert")


def test_a_wrong_password_is_said(secure: Secure) -> None:
    """A login that the node refuses is no question of TLS."""
    refused(secure.url(user="guest:wrong"), "password")


def test_verification_can_be_left_out(secure: Secure) -> None:
    """``tls_verify=false`` takes any certificate and any name."""
    url = secure.url(host="127.0.0.1", tls_ca=None, tls_verify="false")
    with closing(RabbitMQBroker(url)) as broker:
        assert 0 == broker.count(State.DEAD)
