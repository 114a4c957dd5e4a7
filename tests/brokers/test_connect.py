"""Brokers by URL."""

import importlib.metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from goose.brokers import connect, namespaced, redact
from goose.brokers.memory import MemoryBroker
from goose.errors import ConfigError, MissingDriver


def register(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    """Let exactly *entries*, (scheme, value), be registered."""
    points = EntryPoints(EntryPoint(name, value, "goose.brokers") for name, value in entries)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points.select(group=group)
    )


def test_a_url_makes_the_broker_of_its_scheme() -> None:
    """The scheme alone says which broker is made."""
    assert isinstance(connect("memory://here"), MemoryBroker)
    assert isinstance(connect("MEMORY://here"), MemoryBroker)


def test_a_broker_is_a_broker_already() -> None:
    """An object that is a broker comes back as it is."""
    broker = MemoryBroker()

    assert broker is connect(broker)


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    """A misspelt scheme gets the nearest and all that are installed."""
    with pytest.raises(ConfigError) as caught:
        connect("sqllite:///x.db")

    assert "'sqllite:///x.db' has an unknown scheme; did you mean sqlite://? (known: " in str(
        caught.value
    )
    assert "memory://" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "meant"), [("rabbitmq://x", "amqp"), ("psql://x", "postgresql"), ("redi://x", "redis")]
)
def test_a_server_by_its_name_gets_its_scheme(url: str, meant: str) -> None:
    """Who writes the server's name where a scheme belongs is told the scheme."""
    with pytest.raises(ConfigError, match=f"did you mean {meant}://"):
        connect(url)


@pytest.mark.parametrize("url", ["localhost:6379", "", "sqlite"])
def test_what_is_no_url_is_refused_with_an_example(url: str) -> None:
    """Something without a scheme gets an example of a URL."""
    with pytest.raises(ConfigError, match=r"is not a URL; write for example sqlite:///goose\.db"):
        connect(url)


def test_what_is_no_broker_is_refused() -> None:
    """An object without the methods of a broker is named."""
    with pytest.raises(ConfigError, match=r"object .* is not a broker"):
        connect(object())  # type: ignore[arg-type]


def test_a_missing_driver_names_the_install_line(
    monkeypatch: pytest.MonkeyPatch, importable: object
) -> None:
    """A broker of Goose's own without its driver says which extra to install, and hides secrets."""
    with open("needy.py", "w") as file:
        file.write(
            "import importlib\nclass Needy:\n    def __init__(self, url): import no_such_driver\n"
        )
    monkeypatch.setitem(__import__("sys").modules, "goose.brokers.redis", __import__("needy"))
    register(monkeypatch, ("rediss", "goose.brokers.redis:Needy"))

    with pytest.raises(MissingDriver) as caught:
        connect("rediss://me:hunter2@host/0")

    assert (
        "broker 'rediss://me:***@host/0' needs the Python package 'no_such_driver', which is not "
        "installed: pip install 'goose-jobs[redis]'"
    ) == str(caught.value)


def test_another_packages_driver_is_named_itself(
    monkeypatch: pytest.MonkeyPatch, importable: object
) -> None:
    """A third party's broker without its driver names the driver to install."""
    with open("theirs.py", "w") as file:
        file.write("import no_such_driver\n")
    register(monkeypatch, ("theirs", "theirs:Broker"))

    with pytest.raises(MissingDriver, match=r"pip install 'no_such_driver'"):
        connect("theirs://")


def test_a_broken_registration_is_no_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is registered but not there is said to be so."""
    register(monkeypatch, ("gone", "gone_package.broker:Broker"))

    with pytest.raises(
        ConfigError, match=r"gone_package.broker:Broker cannot be imported"
    ) as caught:
        connect("gone://")
    assert not isinstance(caught.value, MissingDriver)


def test_what_a_factory_makes_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An entry point that makes something else is named."""
    register(monkeypatch, ("list", "builtins:list"))

    with pytest.raises(ConfigError, match="made a list, which lacks methods of a broker"):
        connect("list://")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://host/0?password=hunter2&db=1", "redis://host/0?password=***&db=1"),
        ("sqlite:////var/goose.db?synchronous=full", "sqlite:////var/goose.db?synchronous=full"),
        ("memory://", "memory://"),
        ("redis://[broken:hunter2@x", "redis://***"),
        ("redis://:hun/ter2@host:6379/0", "redis://***@host:6379/0"),
        ("redis://user:hun#ter2@host", "redis://***@host"),
        ("redis://user:hun?ter2@host/0", "redis://***@host/0"),
        (
            "redis://host/0?passwd=hunter2&auth=x&api_key=y",
            "redis://host/0?passwd=***&auth=***&api_key=***",
        ),
        ("user:hunter2@host:6379", "***@host:6379"),
        ("sqlite:////home/me@work/goose.db", "sqlite:////home/me@work/goose.db"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    """A URL in a message keeps its shape and loses its secrets."""
    assert shown == redact(url)


def test_a_namespace_is_quoted() -> None:
    """A namespace with odd characters does not break the URL."""
    assert "redis://h?namespace=a%26b" == namespaced("redis://h", "a&b")
    assert "redis://h?namespace=x" == namespaced("redis://h?", "x")
