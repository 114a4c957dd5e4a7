"""TLS to a real server: certificates are verified, and what does not fit is said."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from tests.servers.certificates import Authority, Pair
from tests.servers.ports import free_port
from tests.servers.redis import QUICK, RedisServer

MAIL = [Share("mail")]
Wait = Callable[..., None]


@dataclass
class Secure:
    """A server that speaks TLS, for ``localhost`` alone, and asks for certificates too."""

    server: RedisServer
    port: int
    authority: Authority
    client: Pair
    stranger: Authority

    def url(self, *, host: str = "localhost", user: str = "", **query: object) -> str:
        """Return a URL with all that is needed, but for what *query* says otherwise."""
        known: dict[str, object] = {
            "tls_ca": self.authority.certificate,
            "tls_cert": self.client.certificate,
            "tls_key": self.client.key,
        }
        asked = "&".join(
            f"{name}={value}" for name, value in (known | query).items() if value is not None
        )
        return f"rediss://{user}{host}:{self.port}/0?{asked}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """The server, its authority, and one that it does not know."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "ca", "Goose"), Authority(folder / "other", "Other")
    own = authority.sign("server", alternatives=["DNS:localhost"])
    port = free_port()
    config = {
        **QUICK,
        "tls-port": str(port),
        "tls-cert-file": str(own.certificate),
        "tls-key-file": str(own.key),
        "tls-ca-cert-file": str(authority.certificate),
    }
    with RedisServer(folder / "server", config=config) as server:
        yield Secure(server, port, authority, authority.sign("client"), stranger)


def one() -> list[Envelope]:
    return [Envelope(str(uuid.uuid4()), "mail", b"{}")]


def refused(url: str, match: str) -> None:
    """See that a first call over *url* is refused for good, by words that *match*."""
    with closing(RedisBroker(url)) as broker:
        with pytest.raises(BrokerError, match=match) as caught:
            broker.enqueue(one())
        assert not isinstance(caught.value, BrokerUnavailable), "nothing was sent, so that is known"


def test_jobs_pass_through_a_verified_connection(secure: Secure, wait_until: Wait) -> None:
    """Enqueue, a sleep that is woken, one that is ended, and a settle, all over TLS."""
    lent: list[Delivery] = []
    session = Session("tls")
    with closing(RedisBroker(secure.url())) as broker:
        broker.open(session, ttl=60)

        def sleep() -> None:
            lent.extend(broker.dequeue(session, MAIL, limit=1, wait=30))

        for end in (lambda: broker.enqueue(one()), broker.wake):
            thread = threading.Thread(target=sleep)
            thread.start()
            blocked = secure.server.client.info
            wait_until(lambda blocked=blocked: blocked("clients")["blocked_clients"] == 1)
            end()
            thread.join(10)
            assert not thread.is_alive()
        assert 1 == len(lent)
        assert [] == list(broker.ack(lent))
        assert 0 == broker.count(State.RUNNING)


def test_another_authority_is_refused(secure: Secure) -> None:
    """A server whose certificate nobody trusted has signed is refused, and the option is named."""
    refused(secure.url(tls_ca=secure.stranger.certificate), r"certificate.*tls_ca")
    refused(secure.url(tls_ca=None), r"certificate.*tls_ca")


def test_another_name_is_refused(secure: Secure) -> None:
    """A certificate for another host is refused, even by the right authority."""
    refused(secure.url(host="127.0.0.1"), "name.*the server as the certificate does")


def test_a_missing_client_certificate_is_named(secure: Secure) -> None:
    """Where the server asks for a certificate and there is none, the error names the options."""
    url = secure.url(tls_cert=None, tls_key=None)
    with closing(RedisBroker(url)) as broker, pytest.raises(BrokerError, match="tls_cert"):
        broker.enqueue(one())


def test_verification_can_be_left_out(secure: Secure) -> None:
    """``tls_verify=false`` takes any certificate and any name."""
    url = secure.url(host="127.0.0.1", tls_ca=None, tls_verify="false")
    with closing(RedisBroker(url)) as broker:
        assert 0 == broker.count(State.DEAD)


def test_a_user_of_the_server_logs_in_over_tls(secure: Secure) -> None:
    """An ACL user with the rights that the documentation lists, and no one else, gets through."""
    rights = "~goose:* +@read +@write +@scripting +@connection +time +info"
    secure.server.client.execute_command("ACL", "SETUSER", "eve", "on", ">p@ss", *rights.split())
    with closing(RedisBroker(secure.url(user="eve:p%40ss@"))) as broker:
        broker.enqueue(one())
        assert broker.count(State.READY) >= 1
    refused(secure.url(user="eve:wrong@"), "password")
