"""The fault campaign in its small form, and proof that its checker finds faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import workers
from tests.chaos.history import SETTLED_WITHIN, Fault, Run, check, read_marks

pytestmark = pytest.mark.long


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_nothing_is_lost_under_kills_pauses_and_poison(own_folder: Path) -> None:
    """Real workers on one SQLite file are killed and paused, and every job is accounted for."""
    plan = workers.Plan(jobs=2_000, kills=6, seed=3)
    result = workers.run(f"sqlite:///{own_folder}/chaos.db", own_folder, plan)
    report = "\n".join(result.lines())

    assert result.verdict.ok, report
    assert result.settled > plan.jobs / 2, "the workers note what is settled"
    assert {"segfault": "crashed", "leave": "crashed", "never_end": "timeout"} == result.dead, (
        report
    )
    assert {"kill_child", "pause_all", "pause_child", "poison"} <= {
        kind for kind, met in result.verdict.met.items() if met
    }, report


def test_the_checker_sees_a_loss() -> None:
    """A job that never came to its end and is not stored is lost."""
    verdict = check(["a", "b"], [Run("a", 1, 0.0, 1.0), Run("b", 1, 0.0, None)], [])

    assert (["b"], False) == (verdict.lost, verdict.ok)


def test_the_checker_sees_an_unexplained_duplicate() -> None:
    """A second run is right only if a fault met the first one before it was settled."""
    runs = [Run("a", 1, 0.0, 1.0), Run("a", 2, 5.0, 6.0)]
    settled = [Run("a", 1, 0.0, 1.0, 1.2), Run("a", 2, 5.0, 6.0)]

    assert not check(["a"], runs, []).ok
    assert not check(["a"], runs, [Fault("kill", 1, 1.1 + SETTLED_WITHIN)]).ok
    assert not check(["a"], runs, [Fault("kill", 2, 0.5)]).ok
    assert check(["a"], runs, [Fault("kill", 1, 0.5)]).ok
    assert check(["a"], runs, [Fault("kill", 1, 1.1)]).ok
    assert not check(["a"], settled, [Fault("kill", 1, 0.5)]).ok
    assert not check(["a"], settled, [Fault("kill", 1, 1.1)]).ok


def test_the_checker_knows_zombies() -> None:
    """One that was cut off may start a job that another has done; whoever was not, may not."""
    runs = [Run("a", 1, 3.0, 4.0, 4.2), Run("a", 2, 5.0, 6.0)]
    settled = [Run("a", 1, 3.0, 4.0, 4.2), Run("a", 2, 5.0, 6.0, 6.2)]

    assert check(["a"], runs, [Fault("cut off", 2, 1.0, 7.0)]).ok
    assert not check(["a"], runs, [Fault("cut off", 2, 1.0, 4.9)]).ok
    assert not check(["a"], settled, [Fault("cut off", 2, 1.0, 7.0)]).ok


def test_the_checker_knows_what_a_server_may_forget() -> None:
    """What is settled may run again if the server forgot it, but not if that was before it."""
    runs = [Run("a", 1, 0.0, 1.0, 1.2), Run("a", 2, 5.0, 6.0)]

    assert check(["a"], runs, [Fault("kill", 1, 1.1, 3.0, forgets=True)]).ok
    assert not check(["a"], runs, [Fault("kill", 1, 1.1, 3.0)]).ok
    assert not check(["a"], runs, [Fault("kill", 1, 1.3, 3.0, forgets=True)]).ok
    assert not check(["a"], runs, [Fault("kill", 1, 0.5, 1.1, forgets=True)]).ok
    assert not check(["a"], runs, [Fault("kill", 2, 1.1, 3.0, forgets=True)]).ok
    assert not check(["a"], runs, [Fault("kill", 1, 1.6)], unwritten=0.5).unexplained
    assert check(["a"], runs, [Fault("kill", 1, 1.6)]).unexplained
    assert check(["a"], runs, [Fault("kill", 1, 1.8)], unwritten=0.5).unexplained


def test_the_checker_knows_what_a_fault_fell_into() -> None:
    """What ended in a fault that was on already is not settled before that is over; nothing else is excused by it."""
    unsettled = [Run("a", 1, 0.0, 1.0), Run("a", 2, 5.0, 6.0, 6.1)]
    late = [Run("a", 1, 0.0, 1.0, 2.9), Run("a", 2, 5.0, 6.0, 6.1)]
    runs = [Run("a", 1, 0.0, 1.0, 1.2), Run("a", 2, 5.0, 6.0, 6.1)]

    assert check(["a"], unsettled, [Fault("kill", 1, 3.0, since=0.9)]).ok
    assert check(["a"], unsettled, [Fault("kill", 1, 20.0, since=0.9)]).ok
    assert check(["a"], late, [Fault("kill", 1, 3.0, since=0.9)], unwritten=0.5).ok
    assert check(["a"], runs, [Fault("kill", 1, 3.0, since=0.9)], unwritten=0.5).unexplained
    assert check(["a"], runs, [Fault("kill", 1, 2.0, 3.0, forgets=True, since=0.9)]).unexplained


def test_the_checker_knows_what_was_lent_before_it_was_settled() -> None:
    """A job lent again under a run that then settled all the same is explained by a fault of that run."""
    runs = [Run("a", 1, 0.0, 1.0, 1.2), Run("a", 2, 1.1, 2.0, 2.2)]

    assert check(["a"], runs, [Fault("cut", 1, 0.5)]).ok
    assert not check(["a"], runs, []).ok
    assert not check(["a"], runs, [Fault("cut", 2, 0.5)]).ok


def test_the_checker_knows_retries_that_are_stored_twice() -> None:
    """Where a retry may be stored twice, a fault before its settling explains one run more."""
    runs = [Run("a", 1, 0.0, 1.0, 3.0), *(Run("a", 1, at, at, at + 0.1) for at in (4.0, 5.0))]

    def unexplained(fault: float, *, copies: bool) -> bool:
        verdict = check(["a"], runs, [Fault("cut", 1, fault)], retried=["a"], copies=copies)
        return bool(verdict.unexplained)

    assert not unexplained(2.0, copies=True)
    assert unexplained(2.0, copies=False)
    assert unexplained(9.0, copies=True)


def test_marks_become_runs(tmp_path: Path) -> None:
    """Marks say of each run when it began, ended and was settled, as far as it came."""
    marks = [
        "start a 1.0 id-a",
        "end a 2.0",
        "start b 2.0 id-b",
        "settled id-a 2.5",
        "start c 3.0 id-c",
    ]
    marks += ["fail b 4.0", "settled id-b 4.5", "start b 5.0 id-b", "end b 6.0", "settled id-x 7.0"]
    (tmp_path / "7.marks").write_text("\n".join(marks))

    more = ["start d 8.0 id-d", "start d 8.1 id-d", "end d 8.5", "end d 8.6"]
    (tmp_path / "8.marks").write_text("\n".join(more))

    expected = [
        Run("a", 7, 1.0, 2.0, 2.5),
        Run("b", 7, 2.0, 4.0, 4.5),
        Run("b", 7, 5.0, 6.0),
        Run("c", 7, 3.0, None),
        Run("d", 8, 8.0, 8.6),
        Run("d", 8, 8.1, 8.5),
    ]
    assert expected == sorted(read_marks(tmp_path), key=lambda run: (run.name, run.start))


def test_the_checker_knows_faults_that_last_and_repeated_enqueues() -> None:
    """A run inside a fault is explained, and one copy for each enqueue that was repeated unsure."""
    runs = [Run("a", 1, 2.0, 3.0), Run("a", 2, 5.0, 6.0)]

    assert check(["a"], runs, [Fault("blackhole", 1, 1.0, until=4.0)]).ok
    assert not check(["a"], runs, [Fault("blackhole", 1, 0.0, until=1.0)]).ok
    assert check(["a"], runs, [], unsure={"a": 1}).ok
    assert not check(["a"], [*runs, Run("a", 3, 7.0, 8.0)], [], unsure={"a": 1}).ok
