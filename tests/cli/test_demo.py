"""``goose demo``: what it works on, what it does, how it judges, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from goose.brokers import connect
from goose.brokers.base import Inspector, State
from goose.brokers.sqlite import SQLiteBroker
from goose.demo import files, work
from goose.demo.crew import Kill
from goose.demo.files import File
from goose.demo.history import History
from goose.demo.play import anywhere
from goose.demo.verdict import Ending, Report, Work, expected, judge
from tests.servers.postgres import PostgresServer
from tests.servers.redis import DURABLE, RedisServer

TEXT = "one two\nthree\r\n\n  four\tfive"
TABLE = [
    "jobs", "done", "scheduled", "retried", "killed", "recovered after kill", "run twice", "lost",
    "wrong", "jobs/s", "latency p50", "latency p99",
]  # fmt: skip
KEYS = {
    "jobs", "done", "scheduled", "retried", "kills", "recovered", "run_twice", "unexplained",
    "lost", "dead", "wrong", "changed", "seconds", "jobs_per_second", "latency_p50",
    "latency_p99", "problems", "ok",
}  # fmt: skip


@pytest.fixture
def some(own_folder: Path) -> Path:
    """A folder with a few files, large enough that measuring them takes a moment."""
    folder = own_folder / "some"
    (folder / "deeper").mkdir(parents=True)
    for number in range(8):
        words = "\n".join(f"line {number * line} of many" for line in range(4_000))
        (folder / "deeper" / f"{number}.txt").write_text(words)
    (folder / "empty").touch()
    return folder


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "goose", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


# --- the real thing ----------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_the_demo_loses_nothing_while_workers_are_killed(
    some: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with jobs under way are killed, and every job is done right; nothing stays behind."""
    monkeypatch.setenv("TMPDIR", str(own_folder))
    monkeypatch.setenv("GOOSE_CONCURENCY", "settings around it do not matter")

    done = demo(str(some), "--jobs", "600", "--broker", "sqlite:///shared.db", "--json")
    report = json.loads(done.stdout)

    assert 0 == done.returncode, done.stderr
    assert set(report) == KEYS
    assert (0, 0, 0, 0, []) == tuple(
        report[name] for name in ("lost", "dead", "wrong", "unexplained", "problems")
    )
    assert report["done"] == report["jobs"] >= 600
    assert 2 == len(report["kills"]) == len({kill["pid"] for kill in report["kills"]})
    assert all(kill["jobs"] > 0 for kill in report["kills"])
    assert sum(kill["jobs"] for kill in report["kills"]) >= report["recovered"] > 0
    assert 0 < report["retried"] <= report["jobs"] // 10
    assert report["scheduled"] >= 60
    assert {"some", "shared.db"} <= {path.name for path in own_folder.iterdir()}
    assert [] == list(own_folder.glob("goose-demo-*"))
    broker = SQLiteBroker(f"sqlite:///{own_folder}/shared.db")
    assert 0 == sum(broker.count(state) for state in State)
    broker.close()


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_the_demo_runs_on_a_server(kind: str, some: Path, own_folder: Path) -> None:
    """The same on a server that keeps all on disk: nothing lost, and no job left on it."""
    servers = {
        "redis": lambda folder: RedisServer(folder, config=DURABLE),
        "postgres": PostgresServer,
    }
    with servers[kind](own_folder / "server") as server:
        done = demo(str(some), "--jobs", "600", "--broker", server.url, "--json")
        broker = connect(server.url)
        assert isinstance(broker, Inspector)
        left = sum(broker.count(state) for state in State)
        broker.close()
    report = json.loads(done.stdout)

    assert 0 == done.returncode, done.stderr
    assert (0, 0, 0, 0, []) == tuple(
        report[name] for name in ("lost", "dead", "wrong", "unexplained", "problems")
    )
    assert report["done"] == report["jobs"] >= 600
    assert 2 == len(report["kills"]) == len({kill["pid"] for kill in report["kills"]})
    assert all(kill["jobs"] > 0 for kill in report["kills"])
    assert report["recovered"] > 0
    assert 0 == left


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_too_little_work_is_repeated_until_the_kills_hit(some: Path) -> None:
    """With one job there is nothing left to kill for, so more is enqueued; the table has every row."""
    done = demo(str(some), "--jobs", "1")

    assert 0 == done.returncode, done.stderr
    assert "once more" in done.stderr
    lines = done.stdout.splitlines()
    assert TABLE == [line[:20].strip() for line in lines]
    assert ["lost", "0"] == lines[TABLE.index("lost")].split()


@pytest.mark.processes
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_from_outside_ends_all(
    own_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
    number: int,
    code: int,
) -> None:
    """After Ctrl-C or SIGTERM in the middle no process, no file and no job is left."""
    monkeypatch.setenv("TMPDIR", str(own_folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "goose", "demo", "--broker", "sqlite:///shared.db"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Whoever runs the tests may ignore interrupts; the demo's user does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    wait_until(lambda: list(own_folder.glob("goose-demo-*/marks/*")), seconds=30)
    process.send_signal(number)

    assert code == process.wait(20)
    assert [] == list(own_folder.glob("goose-demo-*"))
    assert [] == _living_in_session(process.pid)
    broker = SQLiteBroker(f"sqlite:///{own_folder}/shared.db")
    assert 0 == sum(broker.count(state) for state in State)
    broker.close()


def _living_in_session(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] != "Z" and int(stat[3]) == session:
            found.append(int(path.parent.name))
    return found


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "'nowhere' does not exist"),
        (["some/empty"], 2, "is a file"),
        (["nothing"], 2, "holds no file to work on (left out: 1 not a regular file)"),
        (["some", "--broker", "memory://"], 2, "leave out --broker"),
        (["some", "--broker", "sqlite:///no/such/place.db"], 2, "make it first"),
        (["some", "--broker", "sqlite:///text.db"], 4, "no sound SQLite database"),
        (["some", "--broker", "text.db"], 2, "is not a URL"),
        (["some", "--jobs", "0"], 2, "--jobs"),
    ],
)
def test_what_cannot_be_is_said(
    some: Path, cli: Any, arguments: list[str], code: int, message: str
) -> None:
    """A wrong argument, or a broker that cannot be had, ends it at once with the reason."""
    Path("nothing").mkdir()
    Path("nothing/link").symlink_to("/etc/passwd")
    Path("text.db").write_text("no database at all\n" * 100)

    done = cli("demo", *arguments)

    assert (code, "") == (done.code, done.out)
    assert message in " ".join(done.err.split())


# --- files -------------------------------------------------------------------------------


def test_what_is_no_plain_file_is_left_out(some: Path) -> None:
    """Links, sockets, pipes, names that are no text, unreadable and huge files are counted by reason."""
    (some / "link").symlink_to(some / "empty")
    (some / "loop").symlink_to(some)
    os.mkfifo(some / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(some / "socket"))
    Path(os.fsdecode(bytes(some) + b"/\xff")).touch()
    with (some / "huge").open("wb") as huge:
        huge.truncate(files.LARGEST + 1)

    found = files.under(some)

    assert 9 == len(found.files)
    assert {"not a regular file": 4, "not named in Unicode": 1, "over 16 MiB": 1} == found.skipped


def test_a_file_that_may_not_be_read_is_left_out(
    some: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and the others are worked on."""
    monkeypatch.setattr(os, "access", lambda path, _: not path.endswith("empty"))

    found = files.under(some)

    assert (8, {"unreadable": 1}) == (len(found.files), found.skipped)


def test_the_default_is_goose_and_the_standard_library() -> None:
    """Sources of both, and none of other people's packages."""
    paths = [file.path for file in files.installed().files]

    assert any(path.endswith("goose/jobs.py") for path in paths)
    assert any(path.endswith("/json/decoder.py") for path in paths)
    assert not [path for path in paths if "site-packages" in path or not path.endswith(".py")]


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite:///x.db?synchronous=normal", "sqlite:///{cwd}/x.db?synchronous=normal"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("redis://localhost/0", "redis://localhost/0"),
    ],
)
def test_the_broker_means_the_same_to_its_workers(own_folder: Path, url: str, meant: str) -> None:
    """Workers run in another folder, so relative paths are made absolute."""
    assert meant.format(cwd=own_folder) == anywhere(url)


# --- jobs and verdict --------------------------------------------------------------------


@pytest.fixture
def stage(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for marks and results, and a text to measure."""
    for part in ("marks", "results", "stumbled"):
        (own_folder / part).mkdir()
    (own_folder / "text").write_text(TEXT)
    monkeypatch.setenv(work.FOLDER, str(own_folder))
    yield own_folder
    work._marks.cache_clear()


def file_of(path: Path) -> File:
    status = path.stat()
    return File(str(path), status.st_size, status.st_mtime_ns)


def works_of(stage: Path, count: int = 1) -> list[Work]:
    return [Work(number, file_of(stage / "text"), due=0.0) for number in range(count)]


def verdict(
    stage: Path, works: list[Work], *kills: Kill, wanted: int = 0, ending: Ending | None = None
) -> Report:
    history = History(stage / "marks")
    history.read()
    return judge(works, history, kills, wanted, stage / "results", ending or Ending(0))


def test_two_ways_of_measuring_agree(stage: Path) -> None:
    """What the job finds is what the verdict expects, and both are right."""
    work.measure(0, str(stage / "text"))
    result = json.loads((stage / "results/0.json").read_text())

    assert result == expected(file_of(stage / "text"))
    assert (len(TEXT), 3, 5) == (result["bytes"], result["lines"], result["words"])
    assert [] == verdict(stage, works_of(stage)).problems


def test_a_job_stumbles_once(stage: Path) -> None:
    """The first run fails, whoever runs it; the second is good, and is no repetition."""
    with pytest.raises(ConnectionError):
        work.stumble(0, str(stage / "text"))
    work.stumble(0, str(stage / "text"))
    report = verdict(stage, works_of(stage))

    assert (1, 1, 0, []) == (report.done, report.retried, report.run_twice, report.problems)


def mark(stage: Path, pid: int, *lines: str) -> None:
    with (stage / "marks" / str(pid)).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def put(stage: Path, number: int = 0) -> None:
    """Write the right result."""
    content = json.dumps(expected(file_of(stage / "text")))
    (stage / "results" / f"{number}.json").write_text(content)


def test_a_lost_job_is_seen(stage: Path) -> None:
    """A job without an end is lost, unless it is still stored or dead."""
    mark(stage, 7, "start 0 1.0")
    works = works_of(stage, 2)

    assert ["2 jobs lost"] == list(verdict(stage, works).problems)
    stored = verdict(stage, works, ending=Ending(0, stored=1, dead=1))
    assert ["1 job dead", "1 job not done in time"] == list(stored.problems)


def test_a_broker_that_cannot_tell_is_not_blamed(stage: Path) -> None:
    """What was not done may still be stored there, so it is not called lost; it fails all the same."""
    report = verdict(stage, works_of(stage), ending=Ending(0, stored=None))

    assert (0, ["1 job not done in time"]) == (report.lost, list(report.problems))


def test_an_end_without_a_result_is_a_loss(stage: Path) -> None:
    """A mark alone proves nothing."""
    mark(stage, 7, "start 0 1.0", "end 0 2.0")

    assert 1 == verdict(stage, works_of(stage)).lost


@pytest.mark.parametrize("content", ["{}", "[", "[]", '{"bytes": 1}'])
def test_a_wrong_result_is_seen(stage: Path, content: str) -> None:
    """Whatever is not exactly what was measured independently is wrong."""
    mark(stage, 7, "start 0 1.0", "end 0 2.0")
    (stage / "results/0.json").write_text(content)

    assert 1 == verdict(stage, works_of(stage)).wrong


def test_a_file_that_changed_meanwhile_is_not_held_against_the_job(stage: Path) -> None:
    """There is nothing to compare its result with."""
    works = works_of(stage)
    work.measure(0, str(stage / "text"))
    (stage / "text").write_text("something else")
    expected.cache_clear()
    report = verdict(stage, works)

    assert (0, 1, []) == (report.wrong, report.changed, report.problems)


def test_a_second_run_needs_a_kill_to_explain_it(stage: Path) -> None:
    """Only the death of the process of the first run explains a second one."""
    mark(stage, 7, "start 0 1.0", "end 0 2.0")
    mark(stage, 8, "start 0 3.0", "end 0 4.0")
    put(stage)
    works = works_of(stage)

    explained = verdict(stage, works, Kill(7, 1))
    assert (1, 0, []) == (explained.run_twice, explained.unexplained, explained.problems)
    assert 1 == verdict(stage, works, Kill(8, 1)).unexplained
    assert ["1 job ran twice, and no kill explains it"] == list(verdict(stage, works).problems)


def test_recovered_is_what_a_kill_interrupted(stage: Path) -> None:
    """A job begun in a killed process and ended in another counts; one of a living process does not."""
    mark(stage, 7, "start 0 1.0", "start 1 1.0", "end 1 1.5")
    mark(stage, 8, "start 0 3.0", "end 0 4.0", "start 2 5.0")
    put(stage, 0)
    put(stage, 1)
    report = verdict(stage, works_of(stage, 2), Kill(7, 1))

    assert (1, 0) == (report.recovered, report.run_twice)
    assert (3.0, 4.0) == (report.seconds, report.latency_p99)


@pytest.mark.parametrize(
    ("kills", "ending", "problem"),
    [
        ([Kill(7, 1)], Ending(0), "only 1 of 2 kills hit jobs under way"),
        ([Kill(7, 1), Kill(8, 0)], Ending(0), "only 1 of 2 kills hit jobs under way"),
        ([Kill(7, 1), Kill(8, 1)], Ending(1), "goose worker ended with exit code 1"),
        ([Kill(7, 1), Kill(8, 1)], Ending(None), "goose worker ended with exit code None"),
    ],
)
def test_a_demo_that_shows_nothing_fails(
    stage: Path, kills: list[Kill], ending: Ending, problem: str
) -> None:
    """All jobs done is not enough: the kills have to hit, and the workers to end well."""
    work.measure(0, str(stage / "text"))
    report = verdict(stage, works_of(stage), *kills, wanted=2, ending=ending)

    assert [problem] == list(report.problems)


def test_history_takes_in_whole_lines_as_they_come(stage: Path) -> None:
    """A line that is only half written is read when it is whole, once."""
    history = History(stage / "marks")
    mark(stage, 7, "start 0 1.0", "start 1 1.0")
    with (stage / "marks/7").open("a") as file:
        file.write("end 0 ")
    history.read()
    assert ([0, 1], set()) == (history.under_way(7), history.done)
    with (stage / "marks/7").open("a") as file:
        file.write("2.0\n")
    history.read()
    history.read()

    assert ([1], {0}, 1) == (history.under_way(7), history.done, len(history.runs[0]))
