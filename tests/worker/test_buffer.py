"""How much is taken, what runs next, and who runs alone."""

from __future__ import annotations

from typing import Any

from goose.brokers.base import Delivery, Session
from goose.jobs import Job, new_id, seal
from goose.worker.buffer import HELD_LIMIT, PROBATION, WINDOW_JOBS, Buffer
from goose.worker.work import Plan, Work

SESSION = Session("s")


def work(*, is_async: bool = False, held: float = 0.0, **fields: Any) -> Work:
    """Return a prepared job."""
    job: Job[Any] = Job(new_id(), "m:f", **fields)
    plan = Plan(is_async, lambda args, kwargs: (args, dict(kwargs)), lambda execution: None)
    return Work(Delivery(seal(job), object(), SESSION), job, plan, held)


def end(buffer: Buffer, one: Work, seconds: float = 0.001, now: float = 0.0) -> None:
    """End *one*, settled."""
    buffer.ended(one, seconds, now)
    buffer.settled(1, now)


def test_at_first_no_more_is_taken_than_can_start() -> None:
    """Before anything is known of the jobs, room is the number of free slots."""
    assert 4 == Buffer(4, 40).room(0.0)


def test_tiny_jobs_are_taken_many_at_a_time() -> None:
    """Once jobs are known to be short, about a hundred are held ahead."""
    buffer = Buffer(4, 40)
    buffer.put([one := work()])
    assert one is buffer.take(0.0, is_async=False)
    end(buffer, one, seconds=0.0001)

    assert WINDOW_JOBS == buffer.room(0.0)


def test_both_kinds_must_have_room() -> None:
    """Slow async jobs that fill their slots keep the intake from taking more of any kind."""
    buffer = Buffer(4, 2)
    buffer.put([one := work()])
    buffer.take(0.0, is_async=False)
    end(buffer, one, seconds=0.0001)
    buffer.put([work(is_async=True), work(is_async=True)])
    for _ in range(2):
        buffer.take(0.0, is_async=True)

    assert 0 == buffer.room(1.0)


def test_slow_jobs_are_never_held_ahead() -> None:
    """With slow jobs there is room only for what can start now."""
    buffer = Buffer(2, 20)
    buffer.put([work(), work()])
    first, second = buffer.take(0.0, is_async=False), buffer.take(0.0, is_async=False)
    assert first is not None
    assert second is not None
    end(buffer, first, seconds=60.0)

    assert 1 == buffer.room(60.0)


def test_a_full_set_of_long_runners_stops_the_prefetch_whatever_the_mean() -> None:
    """Slots that stay taken stop the prefetch, though the jobs before were short."""
    buffer = Buffer(1, 10)
    buffer.put([quick := work(), work()])
    buffer.take(0.0, is_async=False)
    end(buffer, quick, seconds=0.0001)
    assert buffer.take(0.0, is_async=False) is not None

    assert buffer.room(0.05) > 0
    assert 0 == buffer.room(5.0)


def test_room_is_told_when_it_comes_back() -> None:
    """Whoever found no room is called once there is some again."""
    called: list[bool] = []
    buffer = Buffer(1, 10, on_room=lambda: called.append(True))
    buffer.put([one := work()])
    buffer.take(0.0, is_async=False)
    assert 0 == buffer.room(1.0)
    end(buffer, one, seconds=2.0, now=1.0)

    assert [True] == called


def test_jobs_held_for_long_are_given_back() -> None:
    """A job that waits for a slot while long ones run goes back to others."""
    buffer = Buffer(1, 10)
    buffer.put([work(), waiting := work()])
    assert buffer.take(0.0, is_async=False) is not None

    assert ([], None) == buffer.give_up(HELD_LIMIT / 2, 0.0)
    assert ([waiting], None) == buffer.give_up(HELD_LIMIT + 0.1, 0.0)
    assert 0 == buffer.held


def test_a_suspect_waits_until_it_is_alone() -> None:
    """A suspect starts only when nothing else is held, running or unsettled."""
    buffer = Buffer(4, 40)
    buffer.put([other := work(), suspect := work(suspicions=1)])
    assert 0 == buffer.room(0.0)
    assert other is buffer.take(0.0, is_async=False)
    assert buffer.take(0.0, is_async=False) is None
    buffer.ended(other, 0.001, 0.0)
    assert buffer.take(0.0, is_async=False) is None  # its ack has not left yet
    buffer.settled(1, 0.0)

    assert suspect is buffer.take(0.0, is_async=False)


def test_nothing_joins_a_suspect_on_probation() -> None:
    """While a suspect runs, nothing is taken or started, until its probation is over."""
    buffer = Buffer(4, 40)
    buffer.put([work(suspicions=1)])
    assert buffer.take(0.0, is_async=False) is not None
    assert [] == buffer.put([work()])

    assert 0 == buffer.room(PROBATION - 1)
    assert buffer.take(PROBATION - 1, is_async=False) is None
    assert buffer.take(PROBATION + 1, is_async=False) is not None


def test_probation_grows_with_every_suspicion() -> None:
    """A job suspected twice has its process to itself four times as long."""
    buffer = Buffer(4, 40)
    buffer.put([work(suspicions=2)])
    buffer.take(0.0, is_async=False)

    assert 0 == buffer.room(4 * PROBATION - 1)
    assert buffer.room(4 * PROBATION + 1) > 0


def test_only_one_suspect_is_held() -> None:
    """Of several suspects one is kept and the others go back, one is taken at a time then."""
    buffer = Buffer(4, 40)
    kept, back = work(suspicions=1), work(crashes=1)

    assert [back] == buffer.put([kept, back])
    assert kept is buffer.take(0.0, is_async=False)
    end(buffer, kept)
    assert 1 == buffer.room(0.0)
    buffer.put([plain := work()])
    buffer.take(0.0, is_async=False)
    end(buffer, plain)
    assert buffer.room(0.0) > 1


def test_a_suspect_that_never_finds_the_process_empty_goes_elsewhere() -> None:
    """A suspect does not keep a busy worker from taking jobs for ever."""
    buffer = Buffer(4, 40)
    buffer.put([work()])
    buffer.take(0.0, is_async=False)
    buffer.put([suspect := work(suspicions=1)])

    assert ([], suspect) == buffer.give_up(PROBATION + 1, 0.0)
    assert buffer.room(PROBATION + 1) > 0


def test_a_suspect_that_was_sent_away_is_waited_for_longer() -> None:
    """The longer a suspect has found no empty process, the longer the next one waits for it."""
    buffer = Buffer(4, 40)
    buffer.put([work()])
    buffer.take(0.0, is_async=False)
    buffer.put([suspect := work(suspicions=1, deferred_since=1_000.0)])
    sent_away_for = 600.0
    wall = 1_000.0 + sent_away_for

    assert ([], None) == buffer.give_up(sent_away_for / 2 - 1, wall)
    assert ([], suspect) == buffer.give_up(sent_away_for / 2 + 1, wall)


def test_nothing_is_taken_after_close() -> None:
    """A closed buffer has no room, and returns what was not started."""
    buffer = Buffer(4, 40)
    buffer.put([held := work()])

    assert [held] == buffer.close()
    assert 0 == buffer.room(0.0)
    late = work()
    assert [late] == buffer.put([late])


def test_an_unanswering_broker_stops_the_intake() -> None:
    """When outcomes pile up unsettled, nothing more is taken."""
    buffer = Buffer(4, 40)
    buffer.settling(2000)
    assert 0 == buffer.room(0.0)
    buffer.settled(2000, 0.0)
    assert buffer.room(0.0) > 0
