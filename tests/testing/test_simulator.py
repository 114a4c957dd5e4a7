"""The real engine in a simulated world: nothing is lost, every duplicate is explained."""

import os
import re
import sys
from pathlib import Path

import pytest

from goose.testing import simulate
from goose.testing.simulator import Scenario, Story, play
from goose.worker.recovery import Verdict

sys.path.insert(0, str(Path(__file__).parent))
import broken_engines

pytestmark = pytest.mark.long

SEEDS = 2000
STORMY = {"rate": 0.15, "events": (6, 12)}


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    """What happened in 2,000 worlds."""
    processes = min(2, os.cpu_count() or 1)
    return list(simulate.play_many(range(SEEDS), processes=processes))


@pytest.fixture(scope="module")
def total(stories: list[Story]) -> simulate.Total:
    """The sums over all of them."""
    total = simulate.Total()
    for story in stories:
        total.add(story)
    return total


@pytest.mark.timeout(600)
def test_no_world_has_a_violation(stories: list[Story]) -> None:
    """In 2,000 worlds every job ends as it should, and everything drains by itself."""
    assert [] == [(story.seed, story.violations[0]) for story in stories if story.violations]


@pytest.mark.parametrize("seed", [60140])
def test_a_world_that_once_had_a_violation(seed: int) -> None:
    """Seeds of long campaigns that found a defect stay."""
    assert not play(seed).violations


@pytest.mark.timeout(600)
def test_every_kind_of_fault_met_jobs_in_flight(total: simulate.Total) -> None:
    """The faults were real: each kind, on each side of each call, found jobs in flight."""
    calls = ["dequeue", "ack", "requeue", "bury", "release", "heartbeat", "recover", "promote"]
    kinds = [
        f"{fault} {side} {call}"
        for fault in ("crash", "pause", "error", "slow")
        for side in ("before", "after")
        for call in calls
    ]
    kinds += [
        "crash at any moment", "crash between a run and its ack", "pause at any moment",
        "pause between a run and its ack", "cut off", "outage", "jump", "stop", "clean stop",
        "stop that left jobs", "poison", "error after enqueue", "error after schedule",
        "error before enqueue", "error after held",
    ]  # fmt: skip

    assert [] == [kind for kind in kinds if not total.overlapped[kind]]


@pytest.mark.timeout(600)
def test_duplicates_are_few_and_real(total: simulate.Total) -> None:
    """Faults did make jobs run again, so that the bound on that was tested."""
    runs, duplicates = total.numbers["runs"], total.numbers["duplicates"]

    assert SEEDS < duplicates < runs / 3


def test_a_seed_replays() -> None:
    """The same seed makes the same world, traced or not, in this process or another."""
    first, second = play(7, trace=True), play(7, trace=True)

    assert first.trace == second.trace
    assert play(7).calls == first.calls


@pytest.mark.timeout(300)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_at_every_call(before: bool) -> None:
    """A worker that dies at its k-th call to the broker, for every k, loses nothing."""
    small = {"jobs": (4, 4), "seats": (2, 2), "stormy": 6.0}
    quiet = play(3, Scenario(**small, crash_at=(1 << 30, before)))

    assert quiet.calls > 60
    for number in range(quiet.calls):
        story = play(3, Scenario(**small, crash_at=(number, before)))
        assert [] == story.violations, f"call {number}"
        assert 1 == sum(n for kind, n in story.injected.items() if kind.startswith("crash"))


BROKEN = {
    "stranded for ever, start-up race": Scenario(
        broker=broken_engines.RegisteredOnce, change=broken_engines.beats_late
    ),
    "stranded for ever, zombie": Scenario(broker=broken_engines.ZombiesUnnoticed),
    "no fencing": Scenario(broker=broken_engines.Unfenced),
    "a failed batch forgotten": Scenario(change=broken_engines.forgets_a_failed_batch),
    "no patience after an outage": Scenario(change=broken_engines.gives_nobody_time),
    "lost replies not doubted": Scenario(change=broken_engines.doubts_nothing, **STORMY),
    "one epoch for ever": Scenario(change=broken_engines.opens_one_epoch_for_ever, **STORMY),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found_out(name: str) -> None:
    """Without that rule some world in 1,500 has a violation."""
    stories = (play(seed, BROKEN[name]) for seed in range(1500))

    assert any(story.violations for story in stories)


class Everybody(dict[str, Verdict]):
    """The verdict on every job, whoever is asked about: it killed its process."""

    def get(self, _id: str, _default: object = None) -> Verdict:  # type: ignore[override]
        return Verdict.ALONE


@pytest.mark.timeout(300)
def test_blame_without_proof_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every orphan is blamed, some innocent job is dead in one world of 1,000."""
    blamed = lambda *_, **__: lambda delivery: Verdict.ALONE  # noqa: E731
    monkeypatch.setattr("goose.worker.sessions.judge_by_absence", blamed)
    monkeypatch.setattr("goose.testing.simulator.supervisor.testimony", lambda *_: Everybody())

    stories = (play(seed, Scenario(jobs=(14, 20))) for seed in range(1000))

    assert any("is dead: crashed" in text for story in stories for text in story.violations)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(BROKEN)[:2])
def test_the_two_old_defects_strand_jobs(name: str) -> None:
    """With the rules of the two defects put back, a job stays lent for ever in some world."""
    stories = (play(seed, BROKEN[name]) for seed in range(1000))

    assert any("loans are left" in text for story in stories for text in story.violations)


def test_the_command_prints_a_story_that_went_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed with a violation is told line by line, with how to replay it, and exits with 1."""
    broken = Scenario(broker=broken_engines.Unfenced)
    monkeypatch.setattr(
        simulate, "play", lambda seed, scenario=None, trace=False: play(seed, broken, trace=trace)
    )

    code = simulate.main(["--seeds", "200"])

    printed = capsys.readouterr().out
    assert 1 == code
    assert re.search(r"\n +\d+\.\d+  w1: takes job \d+\n", printed)
    assert "accepted from one who had lost it" in printed
    assert re.search(r"replay: python -m goose\.testing\.simulate --seed \d+\n$", printed)


def test_the_command_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a violation it prints what was injected, and exits with 0."""
    code = simulate.main(["--seeds", "5", "--first", "20"])

    assert 0 == code
    assert "5 worlds in" in capsys.readouterr().out
    assert 0 == simulate.main(["--seed", "3"])
