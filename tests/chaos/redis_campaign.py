"""The fault campaign on a real redis-server: everything breaks, and every job is accounted for.

Part one: while jobs are enqueued and run, straight and through a proxy, each fault of
`tests.chaos.redis_faults` happens in turn. After each of them every worker must work again
within `RESUME` seconds, by the same process. Nothing that happens here may make a job run
twice, but an enqueue that had to be repeated.

Part two: workers are killed, paused, replaced and poisoned, now and then while the broker
fails as well.

In the end every acknowledged enqueue is done, dead for a known reason, or stored; whatever ran
twice is explained by a fault that met its first run; and nothing is left over in Redis.
"""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import goose
from goose import brokers
from goose.brokers.base import Inspector, State
from goose.testing.proxy import Proxy
from tests.chaos import jobs
from tests.chaos.crew import Crew
from tests.chaos.fleet import ROOT, wait_until
from tests.chaos.history import Fault, Run, check, read_marks
from tests.chaos.producers import Producers
from tests.chaos.redis_faults import CONFIG, NETWORK, SERVER, Arena
from tests.chaos.redis_report import Incident, Result
from tests.chaos.remains import WAITING, left, stored
from tests.chaos.resp import command_length
from tests.servers.redis import RedisServer

RESUME = 5.0
"""Seconds within which every worker works again once the server accepts connections."""
CALL_LIMIT = 2 * (3.0 + 4.0) + 1.0
"""Seconds a call of a client may take: one that joins others waits for the call under way and
then for its own, each up to the options ``connect_timeout`` and ``timeout``."""
AFTERWARDS = 5.0
"""Seconds after a fault of the broker in which an ack may still be on its way."""
FORGETFUL, UNWRITTEN = "kill, fsync everysec", 2.0
"""The fault, and the seconds before it, of which a server forgets what it had answered: with everysec it
puts a write off for so long while another is being synced. Source: Redis's documentation of appendfsync."""
DEAD = {
    "segfault": "crashed",
    "leave": "crashed",
    "kill_itself": "crashed",
    "never_end": "timeout",
    "exit_quietly": "retries",
    "interrupt": "retries",
}
"""What poison ends as, by function."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a campaign is."""

    jobs: int
    rounds: int
    """How often each fault of the broker happens alone."""
    worker_faults: tuple[str, ...]
    """What is done to workers, by the names of methods of `Crew`."""
    patience: float = 1.0
    """By what the limits of time are multiplied; in a suite on a crowded machine they only tell that
    something hangs."""
    ttl: float = 10.0
    """Seconds; a heartbeat that runs into a dead connection is silent for the four of the broker's
    option ``timeout``, which alone must not cost a session."""
    hold: float = 1.0
    seconds: float = 0.06
    """How long a job takes on average."""
    near: int = 1
    """Workers straight at the server."""
    far: int = 2
    """Workers behind the proxy."""
    threads: int = 8
    long_blackhole: bool = True
    seed: int = 1


SMALL = Plan(
    jobs=3_000,
    rounds=1,
    patience=5.0,
    worker_faults=(
        "kill_child",
        "kill_supervisor",
        "pause_briefly",
        "replace",
        "replace_under_a_long_job",
        "kill_while_stopping",
        "kill_child",
    ),
    ttl=8.0,
    hold=0.4,
    seconds=0.15,
    near=1,
    far=1,
    long_blackhole=False,
)
FULL = Plan(
    jobs=50_000,
    rounds=4,
    worker_faults=(
        "kill_child",
        "kill_supervisor",
        "pause_child",
        "pause_all",
        "pause_briefly",
        "hold_interpreter",
        "replace",
        "replace_under_a_long_job",
        "kill_while_stopping",
        "kill_child",
    )
    * 3,
    threads=32,
)


def run(folder: Path, plan: Plan, say: Callable[[str], object] = lambda _: None) -> Result:
    """Run the campaign in *folder* and return what came of it.

    Args:
        folder: For logs, data and marks.
        plan: How much of everything.
        say: Told what happens, while it does.

    Raises:
        TimeoutError: Workers did not start, or the queues did not drain.
    """
    with (
        RedisServer(folder / "server", config=CONFIG) as server,
        Proxy(("127.0.0.1", server.port), split=command_length) as proxy,
    ):
        return Campaign(folder, plan, server, proxy, say).run()


class _Again(logging.Handler):
    """Counts what brokers of this process stored again, by job."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "stored_again"):
            self.ids[str(vars(record)["job_id"])] += 1


class Campaign:
    """One campaign under way; on another kind of server with other faults."""

    server_faults: Mapping[str, Callable[[Any], None]] = SERVER
    network_faults: Mapping[str, Callable[[Any], None]] = NETWORK
    resume, call_limit = RESUME, CALL_LIMIT
    unwritten, copies = 0.0, False
    """As for `check`."""

    def __init__(
        self, folder: Path, plan: Plan, server: Any, proxy: Proxy, say: Callable[[str], object]
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.say = say
        self.chance = random.Random(plan.seed)
        self.arena = self.make_arena(server, proxy)
        through = server.url.replace(f":{server.port}", f":{proxy.port}")
        self.through = through
        self.clients = [goose.Client(server.url), goose.Client(through)]
        self.direct = goose.Client(server.url)
        urls = [server.url] * plan.near + [through] * plan.far
        self.crew = Crew(folder, urls, self.direct, plan.ttl, random.Random(plan.seed + 1))
        self.producers = Producers(
            self.clients,
            plan.jobs,
            threads=plan.threads,
            # As many as go on for about as long as the faults do.
            rate=plan.jobs / (plan.rounds * self.round() + 4 * len(plan.worker_faults)),
            seconds=plan.seconds,
            seed=plan.seed,
        )
        self._again = _Again()
        self.incidents: list[Incident] = []
        self.more_faults: list[Fault] = []
        self.problems: list[str] = []
        self.forked: list[str] = []

    def make_arena(self, server: Any, proxy: Proxy) -> Any:
        """Return what faults can reach."""
        return Arena(server, proxy, self.chance, self.plan.hold)

    def round(self) -> float:
        """Return about how many seconds it takes until each fault has happened once."""
        return (len(self.server_faults) + len(self.network_faults)) * 3 * self.plan.hold

    def left_over(self) -> str:
        """Return what the server holds in the end."""
        left = self.arena.admin.keys("*")
        return f"{len(left)} keys: {sorted(left)[:12]}"

    def left(self, broker: Inspector) -> int:
        """Return how many jobs are neither done nor dead."""
        return left(broker)

    def stored(self, broker: Inspector) -> dict[State, list[goose.Job]]:
        """Return every job that is stored, by its state."""
        return stored(broker)

    def repeated(self) -> Mapping[str, int]:
        """Return how often a job was stored again by the broker itself, unsure of the first time."""
        again = Counter(self._again.ids)
        names: dict[str, str] = {}
        for path in self.crew.marks.glob("*.marks"):
            for line in path.read_text().splitlines():
                what, name, _, *known = line.split()
                if what == "start":
                    names[known[0]] = name
                elif what == "again":
                    again[name] += 1
        return {names[job]: count for job, count in again.items() if job in names}

    def run(self) -> Result:
        log = logging.getLogger("goose.brokers")
        level = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self._again)
        try:
            return self._run()
        finally:
            log.removeHandler(self._again)
            log.setLevel(level)

    def _run(self) -> Result:
        began = time.monotonic()
        broker = brokers.connect(self.arena.server.url)
        assert isinstance(broker, Inspector)
        with self.crew:
            if max(self.crew.probe()) == float("inf"):
                raise TimeoutError("the workers did not start")
            self.producers.start()
            try:
                self._break_the_broker()
                poison = self._poison()
                self._break_the_workers()
                self.arena.proxy.heal()
            finally:
                self.producers.hurry()
            last = time.monotonic()
            wait_until(lambda: self.left(broker) == 0, 240, "everything drains")
            drained = time.monotonic() - last
            for fleet in self.crew.fleets:
                codes = fleet.stop()
                self.crew.codes += [code for code in codes if code != -9]
            result = self._judge(broker, poison)
        result.facts["seconds"] = f"{time.monotonic() - began:.0f}, {drained:.1f} to drain"
        broker.close()
        for client in (*self.clients, self.direct):
            client.close()
        return result

    # --- part one --------------------------------------------------------------------------

    def _break_the_broker(self) -> None:
        acts = {**self.server_faults, **self.network_faults}
        for number in range(self.plan.rounds):
            kinds = list(acts)
            self.chance.shuffle(kinds)
            for kind in kinds:
                self._incident(kind, acts[kind], far_only=kind in self.network_faults)
            self._fork(f"fork{number}")
        if self.plan.long_blackhole:
            self._long_blackhole()

    def _incident(
        self, kind: str, act: Callable[[Arena], None], *, far_only: bool, alone: bool = True
    ) -> None:
        """Let *act* happen; if it is *alone*, see that everybody works again afterwards."""
        everybody = self.crew.pids()
        pids = everybody if alone else set()
        hits = self.arena.proxy.hits.total()
        began = time.monotonic()
        act(self.arena)
        over = time.monotonic()
        if kind == FORGETFUL:
            since = began - UNWRITTEN
            self.more_faults += [Fault(kind, pid, since, over, forgets=True) for pid in everybody]
        met = self.arena.proxy.hits.total() - hits if far_only else 0
        resumed = max(self.crew.probe()) if alone else 0.0
        self.incidents.append(Incident(kind, began, over, met, resumed))
        self.say(
            f"{began:.1f} {kind}: {over - began:.1f} s, everybody works again after {resumed:.2f} s"
        )
        if resumed > self.resume * self.plan.patience:
            self.problems.append(f"after {kind} it took {resumed:.1f} s until every worker worked")
        if alone and (gone := pids - self.crew.pids()):
            self.problems.append(f"{kind} ended the worker processes {sorted(gone)}")

    def _long_blackhole(self) -> None:
        """B12: those behind the proxy are cut off for longer than their ttl, and come back."""
        far = self.crew.fleets[self.plan.near :]
        pids = self.crew.pids(far)
        began = time.monotonic()

        def act(arena: Arena) -> None:
            arena.proxy.blackhole()
            time.sleep(self.plan.ttl * 1.5)
            arena.proxy.heal()

        self._incident("blackhole beyond the ttl", act, far_only=True)
        until = time.monotonic()
        self.more_faults += [Fault("blackhole", pid, began, until) for pid in pids]

    def _fork(self, prefix: str) -> None:
        """A9: a program forks after it has connected."""
        command = [sys.executable, "-m", "tests.chaos.forking", self.through, prefix, "20"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        self.forked += done.stdout.split()
        if done.returncode or len(done.stdout.split()) != 80:
            self.problems.append(f"a program that forks failed: {done.stderr[-500:]}")

    # --- part two --------------------------------------------------------------------------

    def _poison(self) -> list[str]:
        """F6 to F10: enqueue what ends its process, or never ends."""
        for kind in DEAD:
            # A crash counts for itself, whatever the policy for errors.
            self.direct.using(retry=goose.Retry(max_retries=0)).enqueue(getattr(jobs, kind), kind)
        return list(DEAD)

    def _break_the_workers(self) -> None:
        disturbing = [
            kind
            for kind in {**self.server_faults, **self.network_faults}
            if not kind.startswith("throttle")
        ]
        for number, name in enumerate(self.plan.worker_faults):
            self.say(f"{time.monotonic():.1f} {name}")
            disturbed = None
            if number % 2 and name.startswith(("kill", "pause_")) and name != "pause_briefly":
                kind = self.chance.choice(disturbing)
                disturbed = threading.Thread(
                    target=self._incident,
                    args=(kind, {**self.server_faults, **self.network_faults}[kind]),
                    kwargs={"far_only": kind in self.network_faults, "alone": False},
                )
                disturbed.start()
                time.sleep(self.chance.uniform(0, self.plan.hold))
            getattr(self.crew, name)()
            if disturbed:
                disturbed.join()
            # Each must have work in its hands again before the next thing happens.
            self.crew.probe()

    # --- the end ---------------------------------------------------------------------------

    def _judge(self, broker: Inspector, poison: list[str]) -> Result:
        producers, crew = self.producers, self.crew
        remains = self.stored(broker)
        dead = {
            str(job.args[0]): job.failure.reason if job.failure else ""
            for job in remains[State.DEAD]
        }
        waiting = [f"{state}: {job.args[0]}" for state in WAITING for job in remains[state]]
        runs = [run for run in read_marks(crew.marks) if not run.name.startswith("probe")]
        by_poison = _ends_by_poison(runs, ("segfault", "leave", "kill_itself", "never_end"))
        faults = self._widened([*crew.faults, *self.more_faults, *by_poison])
        verdict = check(
            [*producers.acknowledged, *self.forked, *crew.names, *poison],
            runs,
            faults,
            still_stored=[str(job.args[0]) for found in remains.values() for job in found],
            retried=[*producers.failing, *crew.twice],
            unsure=Counter(producers.unsure) + Counter(self.repeated()),
            unwritten=self.unwritten,
            copies=self.copies,
        )
        overlaps = self._overlaps(runs)
        result = Result(
            verdict, producers, self.incidents, overlaps, Counter(self.plan.worker_faults)
        )
        if waiting:
            result.problems.append(f"drained, and still there: {waiting[:10]}")
        self._find_problems(result, dead)
        result.problems += self.problems
        result.facts |= {
            "longest call": f"{max(call.end - call.start for call in producers.attempts):.1f} s",
            "given back at stop": ", ".join(f"{s:.2f} s" for s in crew.returned) + " after the end",
            "dead": dead,
            "left there": self.left_over(),
        }
        return result

    def _find_problems(self, result: Result, dead: dict[str, str]) -> None:
        producers = self.producers
        if producers.strange:
            result.problems.append(f"enqueue raised {Counter(producers.strange).most_common(3)}")
        if producers.given_up:
            result.problems.append(f"never acknowledged: {producers.given_up[:5]}")
        if dead != DEAD:
            result.problems.append(f"dead are {dead}, not {DEAD}")
        if any(self.crew.codes):
            result.problems.append(
                f"exit codes of workers that were asked to end: {self.crew.codes}"
            )
        for kind, row in result.overlaps.items():
            if row["met"] == 0:
                result.problems.append(f"{kind} met no work")
        log = (self.folder / "workers.log").read_text(errors="replace")
        for sign in ("the audit found", "Traceback", "CRITICAL"):
            if sign in log:
                result.problems.append(f"the workers' log has {log.count(sign)} × {sign!r}")
        if any(
            call.end - call.start > self.call_limit * self.plan.patience
            for call in producers.attempts
        ):
            result.problems.append("a call of a client took too long")

    def _widened(self, faults: Iterable[Fault]) -> list[Fault]:
        """Return *faults*, each with the beginning of the broker's fault it fell into."""
        widened = []
        for fault in faults:
            began = [
                incident.began
                for incident in self.incidents
                if incident.began <= fault.at <= incident.over + AFTERWARDS
            ]
            widened.append(replace(fault, since=min([fault.at, *began])))
        return widened

    def _overlaps(self, runs: list[Run]) -> dict[str, Counter[str]]:
        """Return what each kind of incident met."""
        found: dict[str, Counter[str]] = {}
        for incident in self.incidents:
            row = found.setdefault(incident.kind, Counter())
            met = sum(
                run.start <= incident.over and (run.end is None or run.end >= incident.began)
                for run in runs
            )
            calls = [
                call
                for call in self.producers.attempts
                if call.start <= incident.over and call.end >= incident.began
            ]
            failed = sum(bool(call.error) for call in calls)
            # A fault of the network has met a connection with a request under way.
            hit = met + len(calls) > 0 if incident.kind in self.server_faults else incident.hits > 0
            row.update(times=1, met=hit, runs=met, calls=len(calls), failed=failed)
        return found


def _ends_by_poison(runs: list[Run], poison: Iterable[str]) -> list[Fault]:
    """Return a fault for each process that a poison job ended, at the last thing it noted."""
    last: dict[int, float] = {}
    for run in runs:
        noted = (run.start, run.end or 0.0, run.settled or 0.0)
        last[run.pid] = max(last.get(run.pid, 0.0), *noted)
    return [Fault("poison", run.pid, last[run.pid]) for run in runs if run.name in poison]
