"""Each error of the driver and each answer of the server has its meaning."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from redis import exceptions

from goose.brokers.redis import RedisBroker, scripts
from goose.brokers.redis.faults import CLASSES, CODES, Remedy, judge, translated
from goose.brokers.redis.faults import SAID as TEXTS
from goose.brokers.redis.links import Call, Link
from goose.brokers.redis.options import Options
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope

RETRY, RECONNECT, LOST, REFUSED = Remedy
NOBODY = exceptions.ConnectionError("Error 111 connecting to localhost:6379. Connection refused.")
SAID = {
    "LOADING": RETRY,
    "BUSY": RETRY,
    "TRYAGAIN": RETRY,
    "NOSCRIPT": RETRY,
    "CLUSTERDOWN": RECONNECT,
    "MASTERDOWN": RECONNECT,
    "READONLY": RECONNECT,
    "UNBLOCKED": RECONNECT,
    "MOVED": RECONNECT,
    "ASK": RECONNECT,
    "OOM": REFUSED,
    "MISCONF": REFUSED,
    "NOREPLICAS": REFUSED,
    "NOAUTH": REFUSED,
    "WRONGPASS": REFUSED,
    "NOPERM": REFUSED,
    "DENIED": REFUSED,
    "CROSSSLOT": REFUSED,
    "EXECABORT": REFUSED,
    "": REFUSED,
}


def test_no_code_is_forgotten_here() -> None:
    """The table of this test names every code of the table it tests."""
    assert set(CODES) == set(SAID)


@pytest.mark.parametrize(("code", "remedy"), [(c, r) for c, r in SAID.items() if c])
def test_codes(code: str, remedy: Remedy) -> None:
    """A code is known at the beginning of what the server says, and inside of an old script error."""
    new = exceptions.ResponseError(f"{code} and so on")
    old = exceptions.ResponseError(f"Error running script (call to f_0): @user_script: -{code} x")

    assert (remedy, remedy) == (judge(new).remedy, judge(old).remedy)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), RETRY),
        (exceptions.NoScriptError("No matching script."), RETRY),
        (exceptions.TryAgainError("Multiple keys request during rehashing"), RETRY),
        (exceptions.MaxConnectionsError("Too many connections"), RETRY),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), RECONNECT),
        (exceptions.ClusterDownError("The cluster is down"), RECONNECT),
        (exceptions.MasterDownError("Link with MASTER is down"), RECONNECT),
        (exceptions.MovedError("7 127.0.0.1:7001"), RECONNECT),
        (exceptions.AskError("7 127.0.0.1:7001"), RECONNECT),
        (exceptions.RedisClusterException("no node"), RECONNECT),
        (exceptions.ClusterError("TTL exhausted"), RECONNECT),
        (exceptions.OutOfMemoryError("command not allowed when used memory"), REFUSED),
        (exceptions.NoPermissionError("this user has no permissions"), REFUSED),
        (exceptions.AuthenticationError("invalid username-password pair"), REFUSED),
        (exceptions.AuthenticationError("NOAUTH Authentication required."), REFUSED),
        (exceptions.AuthenticationWrongNumberOfArgsError("wrong number"), REFUSED),
        (exceptions.AuthorizationError("no"), REFUSED),
        (exceptions.ExecAbortError("Transaction discarded"), REFUSED),
        (exceptions.ClusterCrossSlotError("Keys in request"), REFUSED),
        (exceptions.ResponseError("unknown command"), REFUSED),
        (exceptions.ResponseError("max number of clients reached"), LOST),
        (exceptions.ConnectionError("max number of clients reached"), LOST),
        (exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), REFUSED),
        (exceptions.ConnectionError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), REFUSED),
        (exceptions.ConnectionError("EOF occurred in violation of protocol"), LOST),
        (exceptions.ConnectionError("Connection reset by peer"), LOST),
        (exceptions.ConnectionError("Error 111 connecting to h:1. Connection refused."), LOST),
        (exceptions.TimeoutError("Timeout reading from socket"), LOST),
        (exceptions.InvalidResponse("Protocol Error"), LOST),
        (ConnectionResetError(104, "reset"), LOST),
        (BrokenPipeError(32, "pipe"), LOST),
        (TimeoutError("late"), LOST),
    ],
    ids=lambda value: value.name if isinstance(value, Remedy) else type(value).__name__,
)
def test_classes(error: BaseException, remedy: Remedy) -> None:
    """An error of the driver means what its class or its code says."""
    assert remedy is judge(error).remedy


def test_nobody_there_is_said_in_short() -> None:
    """What the driver says of a refused connection says nothing more; nor do its insides."""
    refused = exceptions.ConnectionError("Error 111 connecting to h:1. Connection refused.")
    masterless = exceptions.ConnectionError("No master found for 'm' : <redis.client.Redis(…)>")

    assert "Redis at h:1: connection refused; is Redis running there?" == str(
        translated(refused, "h:1")
    )
    assert str(translated(masterless, "h:1")).endswith("(No master found for 'm')")


@pytest.mark.parametrize(
    ("raised", "unsent"),
    [
        ([NOBODY, NOBODY], True),
        ([exceptions.ConnectionError("Connection reset by peer"), NOBODY], False),
        ([NOBODY, exceptions.ConnectionError("Connection reset by peer")], False),
        ([exceptions.ConnectionError("Connection refused"), NOBODY], False),
    ],
)
def test_unsent_is_only_what_never_left(
    monkeypatch: pytest.MonkeyPatch, raised: list[Exception], unsent: bool
) -> None:
    """A server that is gone after the call was on its way may have got it."""
    link, left = Link(Options()), list(raised)

    def exchange(*_: object, **__: object) -> list[Any]:
        raise left.pop(0)

    monkeypatch.setattr(link, "_exchange", exchange)
    try:
        raise ConnectionRefusedError  # of the caller's own, which says nothing about the call
    except ConnectionRefusedError:
        with pytest.raises(BrokerUnavailable) as caught:
            link.run(Call(scripts.ENQUEUE, ("key",), ()), again=True)

    assert unsent is caught.value.unsent


def test_a_server_that_is_not_there_has_got_nothing() -> None:
    """An enqueue that found nobody listening says that nothing was sent."""
    with pytest.raises(BrokerUnavailable) as caught:
        RedisBroker("redis://127.0.0.1:1").enqueue([Envelope("1", "mail", b"{}")])

    assert caught.value.unsent


def test_every_class_of_the_driver_has_a_meaning() -> None:
    """Whatever error redis-py raises on its own comes out as one of a broker."""
    for _, class_ in inspect.getmembers(exceptions, inspect.isclass):
        if not issubclass(class_, exceptions.RedisError):
            continue
        error = class_.__new__(class_)
        Exception.__init__(error, "text")
        assert isinstance(judge(error).remedy, Remedy), class_


@pytest.mark.parametrize("error", [exceptions.ReadOnlyError("x"), exceptions.ConnectionError("x")])
def test_what_may_pass_is_unavailable(error: Exception) -> None:
    """What a later try may mend is `BrokerUnavailable`, and says where."""
    told = translated(error, "host:1")

    assert isinstance(told, BrokerUnavailable)
    assert "host:1" in str(told)


def test_what_stays_is_refused_with_advice() -> None:
    """What only a person can mend is a plain `BrokerError` with advice."""
    told = translated(exceptions.OutOfMemoryError("command not allowed"), "host:1")

    assert isinstance(told, BrokerError)
    assert not isinstance(told, BrokerUnavailable)
    assert "maxmemory" in str(told)


def test_every_meaning_has_advice() -> None:
    """No entry of the tables is without words."""
    faults = [
        *CODES.values(),
        *TEXTS.values(),
        *(known for known in CLASSES.values() if not isinstance(known, str)),
    ]

    assert [] == [fault for fault in faults if len(fault.advice) < 10]
