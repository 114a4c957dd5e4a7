"""What a test says of enqueued jobs, and the fixtures of the pytest plugin."""

import subprocess
import sys
from pathlib import Path

import pytest

import goose
from goose.brokers.memory import MemoryBroker
from goose.testing import assert_enqueued as assert_on_default
from goose.testing import refute_enqueued as refute_on_default


def send(to: str, *, subject: str = "Hi") -> None: ...


def beat() -> None: ...


def test_a_call_is_found_however_it_was_written(goose_broker, assert_enqueued) -> None:
    """Positions, names and defaults of arguments make no difference; the job is returned."""
    job = goose.enqueue(send, "ada")
    goose.enqueue_in(60, beat)

    assert job == assert_enqueued(send, to="ada")
    assert job == assert_enqueued(send, "ada", subject="Hi")
    assert job == assert_enqueued(goose.call(send, "ada"))
    assert job == assert_enqueued(send)
    assert "default" == assert_enqueued(beat).queue
    assert job == assert_on_default(send, "ada")


def test_what_is_missing_is_told_with_what_there_is(assert_enqueued) -> None:
    """The error names the call that was wanted and lists those that are stored."""
    goose.enqueue(send, "ada")

    with pytest.raises(AssertionError, match=r"^no .*send\(to='bob'.* was enq") as wrong:
        assert_enqueued(send, "bob")
    assert "['ada']" in str(wrong.value)
    with pytest.raises(AssertionError, match=r"^no call of .*:beat was enqueued; there is"):
        assert_enqueued(beat)
    with pytest.raises(TypeError, match="subjct"):
        assert_enqueued(send, "ada", subjct="x")


def test_what_should_not_be_there(refute_enqueued) -> None:
    """Refuting fails with the job that is there, and passes for others."""
    refute_enqueued(send)
    job = goose.enqueue(send, "ada")

    refute_enqueued(send, "bob")
    refute_on_default(beat)
    with pytest.raises(AssertionError, match=job.id):
        refute_enqueued(send, "ada")


def test_the_fixtures_do_not_reach_the_next_test(
    own_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test has an empty broker, drain and inline work, and the default is untouched."""
    Path("jobs_of_mine.py").write_text("seen = []\ndef note(x: int) -> None:\n    seen.append(x)\n")
    Path("test_mine.py").write_text(
        "import goose, jobs_of_mine\n"
        "def test_one(assert_enqueued, goose_drain):\n"
        "    goose.enqueue(jobs_of_mine.note, 1)\n"
        "    assert_enqueued(jobs_of_mine.note, 1)\n"
        "    goose_drain().check()\n"
        "    assert [1] == jobs_of_mine.seen\n"
        "def test_two(goose_client, refute_enqueued):\n"
        "    refute_enqueued(jobs_of_mine.note)\n"
        "def test_three(goose_inline):\n"
        "    goose.enqueue(jobs_of_mine.note, 3)\n"
        "    assert [1, 3] == jobs_of_mine.seen\n"
        "def test_four():\n"
        "    import goose.settings\n"
        "    assert 'goose.db' in goose.settings.active().broker\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
    assert "4 passed" in done.stdout


def test_the_plugin_is_light() -> None:
    """Loading it imports no pydantic, no worker and no broker."""
    code = (
        "import sys, goose.testing.plugin\n"
        "heavy = ['pydantic', 'goose.worker', 'goose.brokers.memory', 'asyncio']\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()


def test_the_memory_broker_is_the_fixtures(goose_broker: MemoryBroker, goose_client) -> None:
    """`goose_client` and the module functions meet on `goose_broker`."""
    assert goose_client.broker is goose_broker
    assert goose.using().broker is goose_broker
