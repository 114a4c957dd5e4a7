"""The benchmarks' judgement: which peer is the one to beat, and what is a missed target."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def verdicts(medians, growth=None):
    from redis_targets import judge

    return {verdict.what: verdict for verdict in judge(medians, growth or {})}


def test_the_fastest_python_peer_is_the_one_to_beat():
    """The drain target is taken from the fastest peer in Python; raw and BullMQ are no peers."""
    rates = {"goose": 30.0, "raw": 90.0, "slow": 2.0, "quick": 5.0, "bullmq": 20.0}

    found = verdicts({side: {"rate": rate} for side, rate in rates.items()})

    best = found["drain, one process, best Python"]
    assert ("quick", 6.0, True) == (best.beside, best.value, best.met)
    assert found["drain, one process, BullMQ"].met


def test_for_latency_the_smallest_is_the_best():
    """A latency above the best peer's is a missed target, however slow the others are."""
    found = verdicts({"goose": {"p50": 1.0}, "a": {"p50": 0.9}, "b": {"p50": 9.0}})

    missed = found["idle latency p50, best"]
    assert ("a", False) == (missed.beside, missed.met)


def test_on_rabbitmq_queues_of_one_kind_are_compared():
    """A confirmed enqueue is compared with confirmed ones on the same kind of queue, bulk with any."""
    from rabbitmq_run import judge

    rates = {"goose": 30.0, "goose-classic": 50.0, "dramatiq": 90.0, "celery": 20.0}
    rates |= {"dramatiq-confirmed": 40.0, "celery-quorum": 10.0, "taskiq-classic": 45.0}
    medians = {side: {"single": rate, "bulk": 100.0} for side, rate in rates.items()}

    found = {verdict.what: (verdict.beside, verdict.other) for verdict in judge(medians)}
    assert {
        "lone enqueue, confirmed": ("celery-quorum", 10.0),
        "lone enqueue, confirmed, classic": ("taskiq-classic", 45.0),
        "bulk, single calls unconfirmed": ("dramatiq", 90.0),
    } == found


def test_on_rabbitmq_callers_are_compared_with_their_like():
    """Threads are compared with threads and tasks with tasks: of all confirmed, and on classic queues of those."""
    from rabbitmq_run import judge

    rates = {"goose": 30.0, "goose-tasks": 40.0, "goose-classic": 20.0, "goose-tasks-classic": 25.0}
    rates |= {"dramatiq-confirmed": 6.0, "celery-quorum": 9.0, "dramatiq": 50.0}
    rates |= {"taskiq": 11.0, "taskiq-classic": 12.0, "bare": 99.0}

    found = judge({side: {"together": rate} for side, rate in rates.items()})
    assert {
        ("16 threads, confirmed", 30.0, "celery-quorum", True),
        ("16 tasks, confirmed", 40.0, "taskiq-classic", True),
        ("16 threads, confirmed-classic", 20.0, "dramatiq-confirmed", True),
        ("16 tasks, confirmed-classic", 25.0, "taskiq-classic", False),
    } == {(verdict.what, verdict.goose, verdict.beside, verdict.met) for verdict in found}


def test_rabbitmq_is_measured_without_a_disk_where_there_is_room(monkeypatch, tmp_path):
    """Its data are in memory, unless there is none to spare: then where temporary files are."""
    import rabbitmq_run

    monkeypatch.setattr(rabbitmq_run, "MEMORY", tmp_path)
    assert str(tmp_path) == rabbitmq_run.place()
    monkeypatch.setattr(rabbitmq_run, "ROOM", 1 << 80)
    assert tempfile.gettempdir() == rabbitmq_run.place()
    monkeypatch.setattr(rabbitmq_run, "MEMORY", tmp_path / "missing")
    assert tempfile.gettempdir() == rabbitmq_run.place()


def test_what_was_not_measured_is_not_judged():
    """A run of some of the measures has verdicts on these only."""
    assert {} == verdicts({"goose": {}, "a": {"rate": 1.0}})


def test_growth_is_judged_from_the_smallest_size():
    """Costs that rise by more than 15 % from the smallest size are a missed target."""
    found = verdicts({}, {"depth_10": 10.0, "depth_10000": 11.0, "depth_1000000": 12.0})

    assert 1.2 == found["growth, depth"].value
    assert not found["growth, depth"].met


def test_environments_lie_outside_the_repository(monkeypatch, tmp_path):
    """The cache is where the environment variable says, else where caches belong."""
    import environments

    monkeypatch.delenv("BENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path / "goose-bench" == environments.cache()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "here"))
    assert tmp_path / "here" == environments.cache()


def test_a_peer_that_cannot_be_installed_says_what_to_do(monkeypatch, tmp_path):
    """Without Node, BullMQ is an error that names what is missing and how to go on."""
    import environments

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(environments.NotInstalledError, match=r"install Node\.js.*--peers"):
        environments.node("bullmq", ("bullmq",))


def test_growth_is_drawn(tmp_path):
    """The plot is well-formed, with a line for each measure and every size on its axis."""
    from redis_plot import draw

    sizes = (10, 10_000, 1_000_000)
    growth = {f"depth_{size}": 20.0 + place for place, size in enumerate(sizes)}
    growth |= {f"heartbeat_{size}": 33.0 for size in (10, 100, 1_000)}
    draw(growth, tmp_path / "growth.svg")
    root = ET.parse(tmp_path / "growth.svg").getroot()
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]

    assert 2 == len(list(root.iter("{http://www.w3.org/2000/svg}polyline")))
    assert {"10", "10,000", "1,000,000", "100", "1,000"} <= set(texts)


def test_the_engine_is_measured_beside_the_yardstick(monkeypatch):
    """The engine has its target; the yardstick in the same run says how fast the machine is."""
    import run

    read = {"yardstick.py": 3.0, "engine.py": run.ENGINE + 1}
    monkeypatch.setattr(run, "_printed", lambda script, _count: read[script])

    yardstick, engine = run.run_engine(argparse.Namespace(jobs=1, repeat=3))

    assert (True, False) == (yardstick.met, engine.met)
    assert (3.0, "≤ 15 µs") == (yardstick.goose, engine.target)


def test_the_yardstick_reads_a_number():
    """The yardstick runs by itself, and knows nothing of Goose."""
    command = [sys.executable, "-I", str(BENCHMARKS / "yardstick.py"), "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert 0 < float(done.stdout) < 10_000
