"""The supervisor's steps, played without processes under a clock of the test's own."""

from __future__ import annotations

import logging
import math
import random
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerError, BrokerUnavailable, SessionLost
from goose.jobs import Job, decode, seal
from goose.metrics.base import CRASHED, PROCESS_DEATHS, RECOVERED
from goose.worker.charge import STOP_SLACK
from goose.worker.control import (
    Count,
    Dump,
    Empty,
    Fatal,
    Leaving,
    Message,
    NewSession,
    Numbers,
    Ordered,
    Ready,
    Refused,
    Stop,
    Stopped,
)
from goose.worker.errands import run_into
from goose.worker.notes import Running
from goose.worker.plan import Plan, Tools
from goose.worker.supervisor import SETTLED, Supervisor
from goose.worker.witness import NoWitness

TTL = 30.0
GRACE = 10.0
QUEUES = [Share("default")]


class Broker(MemoryBroker):
    """A memory broker that can be made to fail."""

    down = False
    error: BrokerError = BrokerUnavailable("no route to host")
    lose_replies: set[str]

    def _maybe(self, verb: str, call: Callable[[], Any]) -> Any:
        if self.down:
            raise self.error
        result = call()
        if verb in self.lose_replies:
            self.lose_replies.remove(verb)
            raise BrokerUnavailable(f"the reply to {verb} was lost")
        return result

    def open(self, session: Session, *, ttl: float) -> None:
        self._maybe("open", lambda: super(Broker, self).open(session, ttl=ttl))

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        self._maybe("heartbeat", lambda: super(Broker, self).heartbeat(session, ttl=ttl))

    def recover(self, session: Session, **how: Any) -> Any:
        return self._maybe("recover", lambda: super(Broker, self).recover(session, **how))

    def release(self, deliveries: Any) -> Any:
        return self._maybe("release", lambda: super(Broker, self).release(deliveries))

    def requeue(self, deliveries: Any) -> Any:
        return self._maybe("requeue", lambda: super(Broker, self).requeue(deliveries))


class Child:
    """A process that does what the test says. Healthy ones tick by themselves."""

    def __init__(self, world: World, session: Session, pid: int) -> None:
        self.world = world
        self.sessions = [session]
        self.pid = pid
        self.code: int | None = None
        self.is_stopped = False
        self.ticks = True
        self.cpu = 0.0
        self.tick = -math.inf
        self.notes: list[Running] = []
        self.ended: list[str] = []
        self.said: list[Message] = []
        self.heard: list[Message] = []
        self.closed = False
        self.obeys = False

    def exit_code(self) -> int | None:
        return self.code

    def stopped(self) -> bool:
        return self.is_stopped

    def cpu_seconds(self) -> float | None:
        return self.cpu

    def kill(self) -> None:
        self.code = -9 if self.code is None else self.code

    def send(self, message: Message) -> bool:
        self.heard.append(message)
        if isinstance(message, NewSession):
            self.sessions.append(Session(message.id, message.epoch))
        if isinstance(message, Stop) and self.obeys:
            self.end()
        return True

    def receive(self) -> list[Message]:
        said, self.said = self.said, []
        return said

    def last_tick(self) -> float:
        return self.tick

    def last_contact(self) -> float:
        return self.tick

    def running(self) -> list[Running]:
        return list(self.notes)

    def ended_last(self) -> list[str]:
        return list(self.ended)

    def close(self) -> None:
        self.closed = True

    # What a test has it do.

    def say(self, message: Message) -> None:
        self.said.append(message)

    def end(self, *last: Message) -> None:
        self.said += [*last, Stopped(clean=not self.notes)]
        self.code = 0

    def takes(self, *ids: str, running: bool = True, deadline: float = math.inf) -> list[Delivery]:
        jobs: list[Job[Any]] = [Job(id=name, fn="app:work") for name in ids]
        self.world.broker.enqueue([seal(job) for job in jobs])
        taken = self.world.broker.dequeue(self.sessions[-1], QUEUES, limit=len(ids), wait=0)
        if running:
            self.notes += [Running(name, deadline) for name in ids]
        return list(taken)


class Witness(NoWitness):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, int, Any]] = []
        self.changes: list[tuple[str, Any]] = []
        self.gone: list[str] = []

    def numbers(self, source: str, changes: Any) -> None:
        self.changes.append((source, changes))

    def count(self, name: str, value: int, tags: Any) -> None:
        self.counted.append((name, value, tags))

    def ended(self, source: str) -> None:
        self.gone.append(source)


class World:
    """A supervisor, its broker and its children, and the time they live in."""

    def __init__(self, **plan: Any) -> None:
        self.now = 1000.0
        self.broker = Broker(clock=self.wall)
        self.broker.lose_replies = set()
        self.children: list[Child] = []
        self.indices: list[int] = []
        """Of the posts they were started for, in the same order."""
        self.spawn_error: OSError | None = None
        self.hangs = False
        self.born_ready = True
        self.witness = Witness()
        self.levels: list[str | None] = []
        tools = Tools(
            self.broker, self.spawn, self.submit, self, random.Random(1), self.witness,
            self.levels.append,
        )  # fmt: skip
        self.supervisor = Supervisor(Plan(**({"ttl": TTL, "grace": GRACE} | plan)), tools)

    def mono(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1e9 + self.now

    def spawn(self, index: int, session: Session) -> Child:
        if self.spawn_error is not None:
            raise self.spawn_error
        child = Child(self, session, 100 + len(self.children))
        self.indices.append(index)
        child.ticks = self.born_ready
        if self.born_ready:
            child.say(Ready())
        self.children.append(child)
        return child

    def submit(self, errand: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.hangs:
            run_into(errand, future)
        return future

    def step(self) -> int | None:
        for child in self.children:
            if child.code is None and child.ticks and not child.is_stopped:
                child.tick = self.now
        return self.supervisor.step(self.now)

    def run(self, seconds: float) -> int | None:
        """Let time pass until the supervisor ends, at most so many seconds."""
        until = self.now + seconds
        code = self.step()
        while code is None and self.now < until:
            self.now += 0.25
            code = self.step()
        return code

    def lives(self, session: Session) -> bool:
        try:
            MemoryBroker.dequeue(self.broker, session, [Share("nothing")], limit=1, wait=0)
        except SessionLost:
            return False
        return True

    def job(self, name: str) -> tuple[State, Job[Any]]:
        found = self.broker.find(name)
        assert found is not None
        return found.state, decode(found.envelope)

    @property
    def living(self) -> list[Child]:
        return [child for child in self.children if child.code is None]


@pytest.fixture
def world() -> World:
    """One process, ready."""
    made = World()
    made.run(1)
    return made


# --- life and death ------------------------------------------------------------------------


def test_each_child_gets_a_session_of_its_own() -> None:
    """As many children as asked for, every one with an open session."""
    world = World(processes=3)
    world.run(1)

    assert 3 == len(world.children) == len({child.sessions[0].id for child in world.children})
    assert all(world.lives(child.sessions[0]) for child in world.children)


def test_the_session_of_a_healthy_child_lives(world: World) -> None:
    """Its heartbeats are sent for it, for as long as it works."""
    world.run(20 * TTL)

    assert world.lives(world.children[0].sessions[0])
    assert 1 == len(world.children)


def test_the_only_running_job_is_blamed_for_the_death(world: World) -> None:
    """It has one crash more; what was not started comes back at no cost; no job is lent."""
    child = world.children[0]
    child.takes("guilty")
    child.takes("waiting", running=False)
    child.code = -11
    world.run(0.5)

    guilty, waiting = world.job("guilty"), world.job("waiting")
    assert (1, 0) == (guilty[1].crashes, guilty[1].suspicions)
    assert (State.READY, 0, 0) == (waiting[0], waiting[1].crashes, waiting[1].suspicions)
    assert 0 == world.broker.count(State.RUNNING)
    assert child.closed


def test_of_several_running_jobs_none_is_blamed(world: World) -> None:
    """All of them become suspects, and none gets a crash."""
    world.children[0].takes("a", "b")
    world.children[0].code = 0  # os._exit(0) in a job is a death like any other
    world.run(0.5)

    assert [(0, 1), (0, 1)] == [
        (job.crashes, job.suspicions) for _, job in (world.job("a"), world.job("b"))
    ]


def test_a_job_that_kills_after_its_own_end_is_found_out(world: World) -> None:
    """Where nothing ran, what had just ended is suspected, and blamed once it ran alone."""
    counts = []
    for _ in range(2):
        child = world.living[0]
        if not counts:
            child.takes("slow poison", running=False)
            child.takes("waiting", running=False)
        else:
            world.broker.promote(["slow poison"])
            world.broker.prioritise(["slow poison"])
            world.broker.dequeue(child.sessions[-1], QUEUES, limit=1, wait=0)
        child.ended = ["slow poison", "settled long ago"]
        child.code = -11
        world.run(2)
        job = world.job("slow poison")[1]
        counts.append((job.crashes, job.suspicions))

    assert [(0, 1), (1, 1)] == counts
    assert 0 == world.job("waiting")[1].suspicions


def test_what_the_supervisor_did_is_counted_by_a_child(world: World) -> None:
    """Recovered and crashed jobs reach the metrics, through one that stays."""
    world.children[0].say(Leaving("max-jobs"))
    world.run(1)
    child = world.children[1]
    child.takes("guilty")
    child.takes("waiting", running=False)
    child.code = -11
    world.run(1)

    assert world.living == [world.children[0], world.children[2]]
    heard = [message for child in world.living for message in child.heard]
    counts = [message for message in world.living[1].heard if isinstance(message, Count)]
    assert counts == heard
    queue = {"queue": "default"}
    died = (PROCESS_DEATHS, 1, {"cause": "died"})
    assert [Count([died, (RECOVERED, 2, queue), (CRASHED, 1, queue)])] == counts
    assert [*counts[0].increments] == world.witness.counted
    assert [f"1/{child.pid}"] == world.witness.gone


def test_what_a_child_has_counted_goes_to_the_witness(world: World) -> None:
    """Under the child's place and process id."""
    child = world.children[0]
    child.say(Numbers([["counter", "jobs.processed", {}, 3]]))
    world.run(1)

    assert [(f"1/{child.pid}", [["counter", "jobs.processed", {}, 3]])] == world.witness.changes


def test_gauges_of_all_reach_one_child() -> None:
    """Whoever works hears them; nobody hears them twice."""
    world = World(processes=2)
    world.run(1)
    world.supervisor.tell_gauges([("queue.oldest", 2.0, {"queue": "mail"})])

    heard = [message for child in world.children for message in child.heard]
    assert [Count((), [("queue.oldest", 2.0, {"queue": "mail"})])] == heard


def test_a_dump_reaches_every_child(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The log names what runs; each child is asked to say where."""
    child = world.children[0]
    child.takes("slow")
    world.supervisor.dump()

    assert "runs 1 job: slow" in caplog.text
    assert [Dump()] == child.heard


def test_a_dead_child_can_settle_nothing(world: World) -> None:
    """Whatever it sent on its way out, its receipts are void once its jobs were taken over."""
    child = world.children[0]
    deliveries = child.takes("a")
    child.code = -9
    world.run(0.5)

    assert deliveries == list(world.broker.ack(deliveries))
    assert not world.lives(child.sessions[0])


def test_a_dead_child_is_replaced_at_once_and_then_ever_later(world: World) -> None:
    """A crash loop is slowed down to a bound, and never ends the supervisor."""
    gaps = []
    for _ in range(10):
        world.living[0].code = -11
        died = world.now
        while not world.living:
            assert world.run(0) is None
            world.now += 0.25
        gaps.append(world.now - died)

    assert gaps[0] <= 0.25
    assert gaps == sorted(gaps)
    assert 30.0 <= gaps[-1] <= 30.5


def test_a_child_that_worked_for_long_is_replaced_at_once_again(world: World) -> None:
    """Deaths count in a row only."""
    for _ in range(5):
        world.living[0].code = -11
        world.run(31)
        assert len(world.living) == 1
    world.run(SETTLED)
    world.living[0].code = -11
    world.run(0.25)

    assert 1 == len(world.living)


def test_a_process_that_cannot_be_started_is_tried_again(world: World) -> None:
    """A system without memory or processes to spare is an outage like another."""
    world.spawn_error = OSError("Resource temporarily unavailable")
    world.living[0].code = -9
    assert world.run(60) is None
    world.spawn_error = None
    world.run(31)

    assert 1 == len(world.living)


# --- signs of life -------------------------------------------------------------------------


def test_a_stopped_child_is_killed_before_its_session_lapses(world: World) -> None:
    """SIGSTOP leaves no zombie: the process is dead when its jobs are taken over."""
    child = world.children[0]
    child.takes("held")
    child.is_stopped = True
    stopped = world.now
    while child.code is None:
        world.run(0.25)
        assert world.now - stopped < TTL
        assert world.lives(child.sessions[0]) or child.code is not None
    world.run(1)

    assert -9 == child.code
    assert 0 == world.broker.count(State.RUNNING)
    assert 1 == world.job("held")[1].crashes
    assert 1 == len(world.living)


def test_a_short_pause_costs_nothing(world: World) -> None:
    """A third of the ttl is survived by process and session."""
    child = world.children[0]
    child.is_stopped = True
    world.run(TTL / 3)
    child.is_stopped = False
    world.run(2 * TTL)

    assert child.code is None
    assert world.lives(child.sessions[0])


def test_a_child_that_burns_cpu_without_a_tick_is_believed_for_a_while() -> None:
    """C code that holds the interpreter's lock keeps the session, up to the stall limit."""
    world = World(stall_limit=300)
    world.run(1)
    child = world.children[0]
    child.ticks = False
    began = world.now
    while child.code is None and world.now - began < 1000:
        child.cpu += 0.25
        world.run(0.25)
        assert world.lives(child.sessions[0]) or child.code is not None

    assert 300 <= world.now - began <= 300 + TTL


def test_a_child_that_neither_ticks_nor_works_is_replaced(world: World) -> None:
    """A deadlock of the whole process is found within one ttl."""
    child = world.children[0]
    child.ticks = False
    world.run(1.2 * TTL)

    assert -9 == child.code
    assert 1 == len(world.living)


def test_slow_imports_are_not_taken_for_death() -> None:
    """A child that is not ready yet owes neither ticks nor CPU time."""
    world = World()
    world.born_ready = False
    world.run(0)
    child = world.children[0]
    world.run(5 * TTL)

    assert child.code is None
    assert world.lives(child.sessions[0])


def test_a_child_that_is_stopped_while_it_starts_is_killed() -> None:
    """The patience with imports ends where a signal has stopped them."""
    world = World()
    world.born_ready = False
    world.run(0)
    world.children[0].is_stopped = True
    world.run(TTL)

    assert -9 == world.children[0].code


def test_silence_while_nobody_listened_does_not_count(world: World) -> None:
    """Supervisor and child stopped one after the other, and continued together, go on."""
    child = world.children[0]
    child.is_stopped = True
    world.run(TTL / 4)
    world.now += 10 * TTL
    world.supervisor.step(world.now)
    child.is_stopped = False
    world.run(TTL)

    assert child.code is None
    assert world.lives(child.sessions[-1])


def test_after_a_pause_of_all_a_new_epoch_begins(world: World) -> None:
    """Supervisor and child stopped past the ttl go on, under a session that was opened first."""
    child = world.children[0]
    world.now += 5 * TTL
    other = Session("other")
    world.broker.open(other, ttl=TTL)
    world.broker.recover(other, limit=10)  # somebody judged by silence meanwhile
    world.supervisor.step(world.now)
    world.run(TTL)

    assert child.code is None
    assert [1, 2] == [session.epoch for session in child.sessions]
    assert world.lives(child.sessions[1])


def test_a_refused_session_is_renewed_at_once(world: World) -> None:
    """The child's word is enough to look; nobody waits for the next heartbeat."""
    child = world.children[0]
    other = Session("other")
    world.broker.open(other, ttl=TTL)
    world.broker.recover(other, limit=1, dead=child.sessions[0])
    child.say(Refused())
    world.run(0.5)

    assert 2 == child.sessions[-1].epoch
    assert world.lives(child.sessions[-1])


def test_a_new_epoch_is_announced_though_the_reply_was_lost(world: World) -> None:
    """If the broker opened it but could not say so, the child still learns of it."""
    child = world.children[0]
    other = Session("other")
    world.broker.open(other, ttl=TTL)
    world.broker.recover(other, limit=1, dead=child.sessions[0])
    world.broker.lose_replies.add("open")
    world.run(TTL / 2)

    assert world.lives(child.sessions[-1])


def test_jobs_of_every_epoch_are_taken_over(world: World) -> None:
    """What was taken under the new session is given back when the child dies."""
    child = world.children[0]
    other = Session("other")
    world.broker.open(other, ttl=TTL)
    world.broker.recover(other, limit=1, dead=child.sessions[0])
    child.say(Refused())
    world.run(0.5)
    child.takes("late")
    child.code = -9
    world.run(0.5)

    assert 1 == world.job("late")[1].crashes


# --- outages -------------------------------------------------------------------------------


def test_an_outage_ends_nothing(world: World) -> None:
    """Children keep running through ten minutes without a broker, and work afterwards."""
    child = world.children[0]
    world.broker.down = True
    assert world.run(600) is None
    world.broker.down = False
    world.run(TTL)

    assert child.code is None
    assert world.lives(child.sessions[-1])


def test_jobs_are_taken_over_when_the_broker_is_back(world: World) -> None:
    """A child that dies during an outage is not forgotten."""
    child = world.children[0]
    child.takes("a")
    world.broker.down = True
    child.code = -9
    world.run(120)
    assert world.broker.count(State.RUNNING) == 1
    world.broker.down = False
    world.run(16)

    assert 0 == world.broker.count(State.RUNNING)
    assert 1 == world.job("a")[1].crashes
    assert 1 == len(world.living)


@pytest.mark.parametrize("verb", ["open", "recover", "release", "requeue"])
def test_a_lost_reply_leaves_no_job_behind(world: World, verb: str) -> None:
    """Whatever the broker did without saying so, every job is back soon, blamed once at most."""
    child = world.children[0]
    child.takes("a")
    child.takes("b", running=False)
    world.broker.lose_replies.add(verb)
    child.code = -9
    world.run(5)

    assert not world.broker.lose_replies
    assert 0 == world.broker.count(State.RUNNING)
    assert 1 == world.job("a")[1].crashes
    assert 0 == world.job("b")[1].crashes


def test_a_broker_that_is_absent_at_the_start_is_waited_for() -> None:
    """It may come within the time given."""
    world = World(wait_broker=30)
    world.broker.down = True
    assert world.run(29) is None
    world.broker.down = False
    world.run(2)

    assert 1 == len(world.living)


def test_a_session_whose_opening_was_not_confirmed_is_not_opened_again() -> None:
    """After a lost reply the start goes on with another epoch, instead of being refused."""
    world = World()
    world.broker.lose_replies.add("open")
    assert world.run(2) is None

    assert 2 == world.children[0].sessions[0].epoch
    assert world.lives(world.children[0].sessions[0])


def test_a_long_outage_leaves_no_more_to_take_over_than_a_short_one(world: World) -> None:
    """Sessions that could not be opened are not asked for jobs when their child has died."""
    world.broker.down = True
    world.living[0].code = -9
    world.run(600)
    world.broker.down = False
    world.run(60)
    asked: list[Session] = []
    recover = world.broker.recover

    def count(session: Session, **how: Any) -> Any:
        asked.append(how["dead"])
        return recover(session, **how)

    world.broker.recover = count  # type: ignore[method-assign]
    world.living[0].code = -9
    world.run(10)

    assert 1 == len(asked)


def test_a_broker_that_stays_absent_ends_the_start() -> None:
    """Exit code 4 after the time given."""
    world = World(wait_broker=30)
    world.broker.down = True

    assert world.run(29) is None
    assert 4 == world.run(3)


def test_a_broker_that_refuses_ends_the_start_at_once() -> None:
    """Waiting would not help: exit code 4."""
    world = World(wait_broker=30)
    world.broker.down = True
    world.broker.error = BrokerError("wrong password")

    assert 4 == world.run(1)


# --- hard timeout --------------------------------------------------------------------------


def test_only_the_stuck_job_pays_for_its_hard_timeout(world: World) -> None:
    """The process is killed and replaced; the stuck job fails once, its neighbours not at all."""
    child = world.children[0]
    child.takes("stuck", deadline=world.now + 60)
    child.takes("neighbour", deadline=world.now + 600)
    child.takes("waiting", running=False)
    world.run(59)
    assert child.code is None
    world.run(1.5)

    stuck, neighbour = world.job("stuck")[1], world.job("neighbour")[1]
    assert -9 == child.code
    assert (1, 0, 0) == (stuck.attempt, stuck.crashes, stuck.suspicions)
    assert (0, 0, 0) == (neighbour.attempt, neighbour.crashes, neighbour.suspicions)
    assert 0 == world.broker.count(State.RUNNING)
    assert 1 == len(world.living)


def test_a_stuck_job_that_ends_just_before_the_kill_is_not_charged(world: World) -> None:
    """What counts are the notes after the death."""
    child = world.children[0]
    child.takes("late", deadline=world.now + 1)
    kill = child.kill

    def ends_first() -> None:
        child.notes.clear()
        kill()

    child.kill = ends_first  # type: ignore[method-assign]
    world.run(2)

    assert 0 == world.job("late")[1].attempt


def test_a_crash_that_forestalls_the_kill_is_a_crash(world: World) -> None:
    """The code of the dead process tells who was faster."""
    child = world.children[0]
    child.takes("late", deadline=world.now + 1)
    child.kill = lambda: setattr(child, "code", -11)  # type: ignore[method-assign]
    world.run(2)

    job = world.job("late")[1]
    assert (0, 1) == (job.attempt, job.crashes)


# --- the end -------------------------------------------------------------------------------


def test_a_signal_ends_the_children_in_order(world: World) -> None:
    """They are told to stop with the grace; when they have, the exit code is 0."""
    child = world.children[0]
    child.obeys = True
    world.supervisor.interrupt(signal.SIGTERM)

    assert 0 == world.run(1)
    assert [Stop(GRACE)] == child.heard
    assert not world.lives(child.sessions[0])
    assert not world.living


def test_what_outlives_the_grace_is_given_back_at_no_cost(world: World) -> None:
    """The process is killed, its jobs are ready at once, unblamed; all within grace + 5 s."""
    child = world.children[0]
    child.takes("long")
    world.supervisor.interrupt(signal.SIGTERM)
    begun = world.now

    assert 0 == world.run(GRACE + 5)
    assert GRACE <= world.now - begun <= GRACE + 5
    state, job = world.job("long")
    assert (State.READY, 0, 0, 0) == (state, job.attempt, job.crashes, job.suspicions)


def test_a_child_that_reports_unfinished_work_is_not_blamed(world: World) -> None:
    """One that ends itself under what runs after the grace says so."""
    child = world.children[0]
    child.takes("long")
    world.supervisor.interrupt(signal.SIGINT)
    world.run(GRACE)
    child.end()

    assert 0 == world.run(1)
    assert State.READY == world.job("long")[0]


def test_a_crash_during_the_grace_is_a_crash(world: World) -> None:
    """A shutdown excuses no job that kills its process."""
    child = world.children[0]
    child.takes("bad")
    world.supervisor.interrupt(signal.SIGTERM)
    world.run(1)
    child.code = -11

    assert 0 == world.run(1)
    assert 1 == world.job("bad")[1].crashes


@pytest.mark.parametrize("hangs", [False, True])
def test_the_end_comes_in_time_without_a_broker(world: World, hangs: bool) -> None:
    """Refused or never answered: the supervisor ends within grace + 5 s and says that it failed."""
    world.children[0].takes("long")
    world.broker.down = not hangs
    world.hangs = hangs
    world.supervisor.interrupt(signal.SIGTERM)
    begun = world.now

    assert 1 == world.run(GRACE + 10)
    assert world.now - begun <= GRACE + 4.5  # the process itself needs a moment to end
    assert not world.living


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_is_immediate(world: World, number: int, code: int) -> None:
    """Everything is killed in the same step."""
    world.supervisor.interrupt(signal.SIGTERM)
    assert world.run(0.5) is None
    world.supervisor.interrupt(number)

    assert code == world.step()
    assert not world.living


def test_a_signal_while_starting_ends_at_once() -> None:
    """A child whose engine never ticked runs nothing and is not waited for."""
    world = World()
    world.born_ready = False
    world.run(0)
    world.supervisor.interrupt(signal.SIGTERM)

    assert 0 == world.run(1.5)
    assert not world.living


def test_a_child_works_a_moment_before_its_readiness_is_heard(world: World) -> None:
    """A signal in that moment is no reason to kill what it runs already."""
    world.born_ready = False
    world.living[0].code = -9
    world.run(0.5)
    child = world.living[0]
    child.ticks = True
    child.takes("first")
    world.supervisor.interrupt(signal.SIGTERM)
    assert world.run(GRACE - 1) is None
    child.notes.clear()
    child.end(Ready())

    assert 0 == world.run(1)
    assert [Stop(GRACE)] == child.heard


def test_a_signal_while_waiting_for_the_broker_ends_at_once() -> None:
    """There is nothing to give back."""
    world = World()
    world.broker.down = True
    world.run(1)
    world.supervisor.interrupt(signal.SIGINT)

    assert 0 == world.run(0.5)


# --- children that end by themselves -------------------------------------------------------


def test_modules_that_cannot_be_imported_end_the_start() -> None:
    """Exit code 3, and no other child survives it."""
    world = World(processes=2)
    world.born_ready = False
    world.run(1)
    world.children[0].say(Fatal(3, "no module named app"))
    world.children[0].code = 3

    assert 3 == world.run(2)
    assert not world.living


def test_after_a_first_success_broken_modules_are_an_outage(world: World) -> None:
    """A deployment in progress is waited for."""
    world.born_ready = False
    world.living[0].code = -9
    for _ in range(20):
        assert world.run(31) is None
        world.living[0].say(Fatal(3, "no module named app"))
        world.living[0].code = 3
    world.born_ready = True
    world.run(31)

    assert 1 == len(world.living)


def test_children_that_never_become_ready_end_the_start() -> None:
    """A segfault at import is no reason to try for ever: exit code 1."""
    world = World()
    world.born_ready = False
    code = None
    for _ in range(10):
        if code is None:
            code = world.run(2)
        for child in world.living:
            child.code = -11

    assert 1 == code
    assert 3 == len(world.children)


def test_poison_that_is_faster_than_the_readiness_is_no_false_start() -> None:
    """Children whose first job kills them before they said a word are replaced all the same."""
    world = World()
    world.born_ready = False
    world.run(0)
    for _ in range(5):
        world.living[0].notes = [Running("poison", math.inf)]
        world.living[0].code = -11
        assert world.run(31) is None

    assert 1 == len(world.living)


def test_all_empty_is_the_end() -> None:
    """With until-empty each child ends for good, and the supervisor after the last."""
    world = World(processes=2)
    world.run(1)
    first, second = world.children
    first.end(Empty())
    assert world.run(5) is None
    assert len(world.living) == 1
    second.end(Empty())

    assert 0 == world.run(1)
    assert 2 == len(world.children)


def test_an_empty_child_that_has_not_ended_yet_is_waited_for(world: World) -> None:
    """Neither replaced nor forgotten before its process is gone; if it dies, it is replaced."""
    child = world.children[0]
    child.say(Empty())
    assert world.run(1) is None
    assert len(world.children) == 1
    child.code = -11
    assert world.run(1) is None
    assert len(world.children) == 2
    world.living[0].end(Empty())

    assert 0 == world.run(1)


def test_a_child_that_dies_after_others_were_empty_is_replaced() -> None:
    """Somebody must run the job that it leaves."""
    world = World(processes=2)
    world.run(1)
    first, second = world.children
    second.takes("left")
    first.end(Empty())
    world.run(1)
    second.code = -9
    world.run(1)
    assert len(world.living) == 1
    world.living[0].end(Empty())

    assert 0 == world.run(1)


def test_a_leaving_child_is_replaced_while_it_drains(world: World) -> None:
    """Its successor starts at once; the old one keeps its session for as long as it takes."""
    child = world.children[0]
    child.takes("long")
    child.say(Leaving("max-jobs"))
    world.run(4 * TTL)
    assert len(world.living) == 2
    assert world.lives(child.sessions[0])
    child.notes.clear()
    child.end()
    world.run(1)

    assert 1 == len(world.living)
    assert world.children[1] is world.living[0]
    assert not world.lives(child.sessions[0])


def test_leaving_is_not_dying(world: World) -> None:
    """However often children leave, the next one starts at once."""
    for _ in range(8):
        world.living[0].end(Leaving("max-jobs"))
        world.run(0.25)
        assert len(world.living) == 1


def test_a_child_that_ends_in_good_order_unasked_is_replaced_at_once(world: World) -> None:
    """A SIGTERM to the child alone makes room for another."""
    world.children[0].end()
    world.run(0.25)

    assert 1 == len(world.living)


def test_a_child_that_hangs_after_its_last_word_is_ended(world: World) -> None:
    """Threads that a job left behind cannot keep the process."""
    child = world.children[0]
    child.say(Stopped(clean=True))
    world.run(5)

    assert -9 == child.code
    assert STOP_SLACK < GRACE  # and that had nothing to do with a shutdown


# --- orders --------------------------------------------------------------------------------

SURPLUS = Stop(GRACE, make_way=True)
"""What a child hears whose post goes."""


def of_three() -> World:
    """Three processes by order, where one was started."""
    world = World()
    world.run(1)
    world.children[0].say(Ordered(3, None))
    world.run(1)
    return world


def test_more_processes_start_at_once() -> None:
    """In the step that hears the order, each on a post and with a session of its own."""
    world = World()
    world.run(1)
    world.children[0].say(Ordered(3, None))
    world.step()

    assert [0, 1, 2] == world.indices
    assert 3 == len({child.sessions[0].id for child in world.living})
    assert all(world.lives(child.sessions[0]) for child in world.living)


def test_surplus_processes_end_as_at_a_stop() -> None:
    """The last posts go: nothing is taken there any more, what runs has the grace, and none comes after."""
    world = of_three()
    first, *rest = world.children
    for child in rest:
        child.takes(f"on {child.pid}")
    first.say(Ordered(1, None))
    world.run(GRACE - 1)
    assert [[], [SURPLUS], [SURPLUS]] == [child.heard for child in world.children]
    assert all(world.lives(child.sessions[0]) for child in rest)
    for child in rest:
        child.notes.clear()
        child.end()
    world.run(4 * TTL)

    assert [first] == world.living
    assert [0, 1, 2] == world.indices
    assert not any(world.lives(child.sessions[0]) for child in rest)
    assert [None, 0, 0] == [child.code for child in world.children]


def test_what_outlives_the_grace_on_a_surplus_process_is_given_back_at_no_cost() -> None:
    """It is killed like at a shutdown, and its job is ready again, unblamed."""
    world = of_three()
    world.children[2].takes("long")
    world.children[0].say(Ordered(2, None))
    world.run(GRACE + STOP_SLACK + 0.5)

    assert [None, None, -9] == [child.code for child in world.children]
    state, job = world.job("long")
    assert (State.READY, 0, 0, 0) == (state, job.attempt, job.crashes, job.suspicions)


def test_a_surplus_process_that_dies_is_answered_for_and_not_replaced() -> None:
    """The job that killed it is blamed, and nobody comes to the post that is gone."""
    world = of_three()
    world.children[2].takes("guilty")
    world.children[0].say(Ordered(2, None))
    world.run(1)
    world.children[2].code = -11
    world.run(40)

    assert 1 == world.job("guilty")[1].crashes
    assert world.children[:2] == world.living
    assert (PROCESS_DEATHS, 1, {"cause": "died"}) in world.witness.counted


def test_what_is_said_again_changes_nothing() -> None:
    """Every process says it every few seconds, and it is done once."""
    world = of_three()
    for _ in range(3):
        for child in world.living:
            child.say(Ordered(3, "debug"))
        world.run(0.5)

    assert [0, 1, 2] == world.indices
    assert ["debug"] == world.levels
    assert [[]] * 3 == [child.heard for child in world.children]


def test_a_withdrawn_order_brings_back_what_it_was_started_with() -> None:
    """The number of processes and the log level are the supervisor's own again."""
    world = World(processes=2)
    world.run(1)
    for child in world.children:
        child.obeys = True
    world.children[1].say(Ordered(1, "error"))
    world.run(1)
    assert (1, ["error"]) == (len(world.living), world.levels)
    world.children[0].say(Ordered(None, None))
    world.run(1)

    assert [0, 1, 1] == world.indices
    assert 2 == len(world.living)
    assert ["error", None] == world.levels


def test_an_order_outlives_those_who_told_it() -> None:
    """Their successors, who cannot read it, say nothing, and so take nothing back."""
    world = of_three()
    world.children[0].say(Ordered(3, "debug"))
    world.run(1)
    for child in world.living:
        child.code = -9
    world.run(40)

    assert [0, 1, 2, 0, 1, 2] == world.indices
    assert 3 == len(world.living)
    assert ["debug"] == world.levels


def test_one_that_leaves_is_not_heard() -> None:
    """What it read last may be old, and it may not live to say something newer."""
    world = of_three()
    world.children[1].say(Leaving("max-jobs"))
    world.run(1)
    world.children[1].say(Ordered(1, "debug"))
    world.run(1)

    assert 4 == len(world.living)
    assert [] == world.levels


def test_a_recycled_process_of_a_post_that_goes_keeps_its_time() -> None:
    """One that left for another reason is in nobody's way, and its jobs end in peace."""
    world = of_three()
    recycled = world.children[2]
    recycled.takes("long")
    recycled.say(Leaving("max-jobs"))
    world.run(1)
    world.children[0].say(Ordered(1, None))
    world.run(4 * GRACE)

    assert [world.children[0], recycled] == world.living
    assert [] == recycled.heard


def test_one_that_leaves_as_its_post_goes_keeps_its_time() -> None:
    """Also where both are heard of in one step, the order first."""
    world = of_three()
    recycled = world.children[2]
    recycled.takes("long")
    recycled.say(Leaving("max-jobs"))
    world.children[0].say(Ordered(2, None))
    world.run(4 * GRACE)

    assert world.children == world.living
    assert [] == recycled.heard


def test_who_becomes_surplus_is_not_heard_any_more() -> None:
    """What it said in the same step may be old: it does not take back what ends it."""
    world = of_three()
    world.children[0].say(Ordered(1, None))
    world.children[1].say(Ordered(3, "debug"))
    world.run(1)

    assert [0, 1, 2] == world.indices
    assert [] == world.levels


def test_a_post_that_comes_back_does_not_wait_for_its_last_process() -> None:
    """From three to one and to three again: the new ones start beside those that still drain."""
    world = of_three()
    world.children[1].takes("long")
    world.children[0].say(Ordered(1, None))
    world.step()
    world.children[0].say(Ordered(3, None))
    world.step()

    assert [0, 1, 2, 1, 2] == world.indices
    assert State.RUNNING is world.job("long")[0]


def test_who_stays_works_at_once_though_it_died_again_and_again() -> None:
    """An order that ends the only process at work does not leave its jobs to a long pause."""
    world = of_three()
    for _ in range(8):
        alive = [child for child in world.living if child not in world.children[1:3]]
        for child in alive:
            child.code = -11
        world.run(0.25)
    assert world.children[1:3] == world.living
    world.children[1].say(Ordered(1, None))
    world.step()

    assert 0 == world.indices[-1]
    assert world.children[-1] in world.living


def test_who_had_found_nothing_looks_again_when_the_others_go() -> None:
    """With until-empty, jobs that a surplus process gives back are not left behind."""
    world = of_three()
    first, second, third = world.children
    first.end(Empty())
    second.end(Empty())
    world.run(1)
    third.say(Ordered(1, None))
    third.obeys = True
    assert world.run(1) is None
    assert [0, 1, 2, 0] == world.indices
    world.living[0].end(Empty())

    assert 0 == world.run(1)


@pytest.mark.parametrize("order", [True, False])
def test_what_comes_back_after_all_found_nothing_is_looked_for(order: bool) -> None:
    """With until-empty, whoever left with a job has the others look again once that is given back."""
    world = of_three()
    last = world.children[2]
    last.takes("long")
    if order:  # it is surplus, and cut at the end of the grace
        world.children[0].say(Ordered(2, None))
    else:  # it makes way, its successor finds nothing either, and it dies
        last.say(Leaving("max-jobs"))
    world.run(1)
    for child in world.living:
        if child is not last:
            child.end(Empty())
    assert world.run(GRACE) is None
    assert [last] == world.living
    if not order:
        last.code = -11
    assert world.run(STOP_SLACK) is None

    assert State.READY is world.job("long")[0]
    assert 2 + (not order) == len(world.living)
    for child in world.living:
        child.end(Empty())
    assert 0 == world.run(1)


def test_a_surplus_process_that_was_empty_too_is_not_taken_over() -> None:
    """Where nothing was left for anybody, nobody looks again."""
    world = of_three()
    first, second, third = world.children
    second.end(Empty())
    third.end(Empty())
    world.run(1)
    first.say(Ordered(2, None))
    world.run(1)
    first.end(Empty())

    assert 0 == world.run(1)
    assert 3 == len(world.children)


def test_no_process_starts_for_an_order_while_all_of_them_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stop is not undone, by what was said just before it either."""
    caplog.set_level(logging.INFO)
    world = of_three()
    world.supervisor.interrupt(signal.SIGTERM)
    world.children[0].say(Ordered(5, None))
    world.run(0.25)
    for child in world.living:
        child.end()

    assert 0 == world.run(1)
    assert 3 == len(world.children)
    assert "5 instead of" not in caplog.text


def test_a_surplus_process_that_was_ready_first_is_a_success() -> None:
    """A broker that goes away after that is an outage, and ends nothing."""
    world = World(processes=2)
    world.born_ready = False
    world.run(0)
    world.children[1].ticks = True
    world.children[1].obeys = True
    world.children[1].say(Ready())
    world.children[1].say(Ordered(1, None))
    world.run(1)
    world.broker.down = True
    world.children[0].code = -9

    assert world.run(300) is None
