"""Settings: where each value comes from, and what is said when it is wrong."""

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import goose
from goose.brokers.base import Share
from goose.errors import ConfigError
from goose.retries import Retry
from goose.settings import Settings, active, configure, load, with_given


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """No configuration comes in from another test or goes out to one."""
    configure()
    yield
    configure()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load_with(folder: Path, **environ: str) -> Settings:
    return load(folder, environ)


def test_nothing_is_needed(tmp_path: Path) -> None:
    """Without any configuration jobs go to a file in the current directory."""
    settings = load(tmp_path, {})

    assert f"sqlite:///{tmp_path}/goose.db" == settings.broker
    assert (Share("default"),) == settings.worker_queues
    assert "default" == settings.origin("broker")


def test_the_file_is_found_from_below(tmp_path: Path) -> None:
    """The nearest goose.toml from the directory upwards counts, and holds the database."""
    write(tmp_path / "goose.toml", 'queue = "mail"')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    settings = load(below, {})

    assert "mail" == settings.queue
    assert f"sqlite:///{tmp_path}/goose.db" == settings.broker
    assert f"{tmp_path}/goose.toml: queue" == settings.origin("queue")


def test_pyproject_is_a_place_for_settings(tmp_path: Path) -> None:
    """`[tool.goose]` is read as goose.toml would be."""
    write(tmp_path / "pyproject.toml", '[tool.goose]\nconcurrency = 4\nttl = "1m"')

    settings = load(tmp_path, {})

    assert (4, 60.0) == (settings.concurrency, settings.ttl)


def test_a_project_without_settings_still_holds_the_database(tmp_path: Path) -> None:
    """The default database lies beside the nearest pyproject.toml if nothing is configured."""
    write(tmp_path / "pyproject.toml", "[project]\nname = 'x'")
    below = tmp_path / "src"
    below.mkdir()

    assert f"sqlite:///{tmp_path}/goose.db" == load(below, {}).broker


def test_two_files_in_one_place_are_refused(tmp_path: Path) -> None:
    """Settings in goose.toml and pyproject.toml side by side would hide each other."""
    write(tmp_path / "goose.toml", "")
    write(tmp_path / "pyproject.toml", "[tool.goose]\n")

    with pytest.raises(ConfigError, match="both have settings; keep one"):
        load(tmp_path, {})


def test_a_relative_database_belongs_to_its_file(tmp_path: Path) -> None:
    """A relative SQLite path in a file means the same from wherever a program starts."""
    write(tmp_path / "goose.toml", 'broker = "sqlite:///jobs.db?synchronous=full"')
    below = tmp_path / "src"
    below.mkdir()

    assert f"sqlite:///{tmp_path}/jobs.db?synchronous=full" == load(below, {}).broker


def test_the_order_is_code_environment_file_default(tmp_path: Path) -> None:
    """Each field comes from the nearest place that says something about it."""
    write(tmp_path / "goose.toml", 'queue = "file"\nconcurrency = 2\nprocesses = 2')
    environment = load(tmp_path, {"GOOSE_QUEUE": "environment", "GOOSE_CONCURRENCY": "3"})
    settings = with_given(environment, {"queue": "code"})

    assert ("code", 3, 2, 30.0) == (
        settings.queue,
        settings.concurrency,
        settings.processes,
        settings.grace,
    )
    assert "configure(): queue" == settings.origin("queue")
    assert "environment variable GOOSE_CONCURRENCY" == settings.origin("concurrency")
    assert f"{tmp_path}/goose.toml: processes" == settings.origin("processes")
    assert "default" == settings.origin("grace")


def test_a_variable_set_to_nothing_is_not_set(tmp_path: Path) -> None:
    """An empty variable, as containers often pass on, changes nothing."""
    assert 10 == load_with(tmp_path, GOOSE_CONCURRENCY="").concurrency


@pytest.mark.parametrize(
    ("written", "shares"),
    [
        ("mail,default", (Share("mail"), Share("default"))),
        ("critical=6, default=3", (Share("critical", 6), Share("default", 3))),
    ],
)
def test_queues_are_strict_or_weighted(
    tmp_path: Path, written: str, shares: tuple[Share, ...]
) -> None:
    """Queues are names in order, or names with weights, in the environment and in a file."""
    write(tmp_path / "goose.toml", f'queues = "{written}"')

    assert shares == load(tmp_path, {}).queues
    assert shares == load_with(tmp_path, GOOSE_QUEUES=written).queues


def test_queues_may_be_a_list_or_a_table(tmp_path: Path) -> None:
    """TOML's own lists and tables do as well."""
    write(tmp_path / "goose.toml", 'queues = ["a", "b"]')
    assert (Share("a"), Share("b")) == load(tmp_path, {}).queues

    write(tmp_path / "goose.toml", "[queues]\na = 2\nb = 1")
    assert (Share("a", 2), Share("b", 1)) == load(tmp_path, {}).queues


def test_every_worker_setting_can_come_from_the_environment(tmp_path: Path) -> None:
    """Lists are written with commas, times and sizes with units."""
    settings = load_with(
        tmp_path,
        GOOSE_MIDDLEWARE="app.mw:one,app.mw:two",
        GOOSE_METRICS="statsd://localhost:8125",
        GOOSE_ALLOW="app.jobs, app.more",
        GOOSE_GRACE="2m",
        GOOSE_HARD_TIMEOUT="1h",
        GOOSE_MAX_RSS="512MB",
        GOOSE_TIMEOUT="none",
        GOOSE_RETRY="3",
        GOOSE_LOG_FORMAT="json",
    )

    assert ("app.mw:one", "app.mw:two") == settings.middleware
    assert ("statsd://localhost:8125",) == settings.metrics
    assert ("app.jobs", "app.more") == settings.allow
    assert (120.0, 3600.0, 512 * 1024**2) == (
        settings.grace,
        settings.hard_timeout,
        settings.max_rss,
    )
    assert math.inf == settings.timeout
    assert Retry(max_retries=3) == settings.retry
    assert "json" == settings.log_format


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('queues = "x y"', "/goose.toml: queues = 'x y': 'x y' cannot name a queue"),
        ('queues = "a=1,b"', "give every queue a weight, or none"),
        ('queues = "a,a"', "a queue is named twice"),
        (
            'queues = ["a=6", "b=0"]',
            "'b=0']: 'b=0': the weight must be a whole number of at least 1",
        ),
        ("queues = {a = 6, b = 0}", "'b': the weight must be a whole number of at least 1"),
        ("queues = []", "name at least one queue"),
        ("queues = 5", "/goose.toml: queues = 5: give 'mail,default'"),
        ("concurrency = 0", "/goose.toml: concurrency = 0: give a whole number of at least 1"),
        ('grace = "soon"', "/goose.toml: grace = 'soon': give seconds"),
        ("ttl = 0", "/goose.toml: ttl = 0: it must be above 0 seconds"),
        ('broker = "localhost"', "/goose.toml: broker = 'localhost': give a URL"),
        (
            "concurency = 4",
            "/goose.toml: concurency is not a setting of Goose; did you mean concurrency?",
        ),
        ("retry = {max_retry = 3}", "did you mean 'max_retries'?"),
        ('log_format = "xml"', "give one of text, json"),
        ("= 3", "/goose.toml is not TOML: "),
        ("broker = sqlite:///x.db", "line 1, column 10); texts stand in quotes"),
        ("[goose]", "goose is not a setting of Goose; in goose.toml the keys stand at the top"),
        ("[tool.goose]", "tool is not a setting of Goose; in goose.toml the keys stand at the top"),
    ],
)
def test_an_error_names_file_key_value_and_fix(tmp_path: Path, text: str, said: str) -> None:
    """Whatever is wrong in a file is named with the file, the key, the value and the way out."""
    write(tmp_path / "goose.toml", text)

    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})

    assert said in str(caught.value)


def test_an_unknown_variable_is_an_error(tmp_path: Path) -> None:
    """A misspelt variable is not passed over in silence."""
    with pytest.raises(ConfigError) as caught:
        load_with(tmp_path, GOOSE_BROKR="memory://")

    assert (
        "environment variable GOOSE_BROKR is not a setting of Goose; did you mean GOOSE_BROKER? "
        "(if it belongs to another program, set GOOSE_IGNORE=GOOSE_BROKR)"
    ) == str(caught.value)


def test_variables_of_other_programs_can_be_named(tmp_path: Path) -> None:
    """`GOOSE_IGNORE` lists variables that are nobody's mistake."""
    load_with(tmp_path, GOOSE_MODEL="x", GOOSE_MODE="y", GOOSE_IGNORE="GOOSE_MODEL, GOOSE_MODE")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """A wrong value that holds a password is shown without it."""
    with pytest.raises(ConfigError) as caught:
        load_with(tmp_path, GOOSE_CONCURRENCY="redis://u:hunter2@host/0")

    assert "hunter2" not in str(caught.value)


def test_a_namespace_is_added_to_the_broker(tmp_path: Path) -> None:
    """The namespace travels in the broker's URL, unless the URL has one of its own."""
    settings = load_with(tmp_path, GOOSE_NAMESPACE="shop", GOOSE_BROKER="redis://h/0?x=1")
    own = load_with(tmp_path, GOOSE_NAMESPACE="shop", GOOSE_BROKER="redis://h/0?namespace=a")

    assert "redis://h/0?x=1&namespace=shop" == settings.broker
    assert "redis://h/0?namespace=a" == own.broker


def test_a_nearer_namespace_replaces_a_farther_one(tmp_path: Path) -> None:
    """The namespace follows the order of places too, whatever was added to the URL before."""
    far = load_with(tmp_path, GOOSE_NAMESPACE="far", GOOSE_BROKER="redis://h/0")

    assert "redis://h/0?namespace=near" == with_given(far, {"namespace": "near"}).broker
    assert "redis://i?namespace=far" == with_given(far, {"broker": "redis://i"}).broker


def test_configure_is_over_everything_and_can_be_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What code configures wins; configuring anew replaces it, and nothing removes it."""
    monkeypatch.setenv("GOOSE_QUEUE", "environment")
    configure(queue="code", processes=3)
    assert ("code", 3) == (active().queue, active().processes)

    configure(processes=4, timeout=timedelta(minutes=1))
    assert 60.0 == active().timeout
    assert ("environment", 4) == (active().queue, active().processes)

    configure()
    assert ("environment", 1) == (active().queue, active().processes)


def test_configure_refuses_unknown_keys() -> None:
    """A misspelt keyword is an error with the nearest name."""
    with pytest.raises(ConfigError, match=r"configure\(\): quue is not .* did you mean queue\?"):
        configure(quue="x")


def test_a_failed_configure_changes_nothing() -> None:
    """A wrong value leaves the former configuration in place."""
    configure(queue="before")
    with pytest.raises(ConfigError):
        goose.configure(queue="after", ttl=0)

    assert "before" == active().queue
