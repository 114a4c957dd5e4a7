"""The campaign of flows: random graphs of jobs, on real workers that are killed.

Each job adds its own number to what its parents returned, so its result tells whether it had all of
them. Marks tell when it began and ended: no job may begin before each of its parents has
ended once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import goose
from goose.settings import Settings
from tests.chaos import jobs
from tests.chaos.fleet import Fleet

TTL = 3.0
PATIENCE = 300.0
"""Seconds from the last kill until all must be done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a campaign is."""

    flows: int = 200
    nodes: int = 50
    """Jobs of one flow at most."""
    kills: int = 40
    seed: int = 1
    spacing: float = 0.7
    """Seconds between two kills, on average."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    flows: int
    nodes: int
    edges: int
    kills: int
    again: int
    """Runs beyond one for each job."""
    wrong: list[str]
    """Jobs without a result, or with a wrong one."""
    early: list[str]
    """Jobs that began before a parent had ended."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every job ran, after its parents, with the right result."""
        return not self.wrong and not self.early

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        return [
            f"flows               {self.flows:,}",
            f"jobs                {self.nodes:,}, with {self.edges:,} dependencies",
            f"kills               {self.kills}",
            f"runs again          {self.again}",
            f"results wrong       {len(self.wrong)} {self.wrong[:3]}",
            f"before a parent     {len(self.early)} {self.early[:3]}",
            f"seconds             {self.seconds:.0f}",
        ]


def run(
    url: str, folder: Path, plan: Plan, say: Callable[[str], object] = lambda _: None
) -> Result:
    """Enqueue the flows, kill workers until the kills are used up, and wait for the results."""
    chance = random.Random(plan.seed)
    began = time.monotonic()
    with goose.Client(settings=Settings(broker=url)) as client:
        graphs = [_enqueue(client, chance, number, plan.nodes) for number in range(plan.flows)]
        say(f"{plan.flows} flows enqueued after {time.monotonic() - began:.0f} s")
        options = ["--processes", "2", "--concurrency", "4", "--ttl", f"{TTL:g}s"]
        with Fleet(folder, url, options) as fleet:
            for _ in range(2):
                fleet.start()
            kills = 0
            while kills < plan.kills and not _done(client, graphs):
                time.sleep(chance.uniform(0.3, 1.7) * plan.spacing)
                if chance.random() < 0.3:
                    fleet.kill_supervisor(chance)
                    kills += 1
                else:
                    kills += fleet.kill_child(chance)
            say(f"{kills} kills after {time.monotonic() - began:.0f} s")
            deadline = time.monotonic() + PATIENCE
            while not _done(client, graphs) and time.monotonic() < deadline:
                time.sleep(0.5)
            fleet.stop()
        wrong = [
            f"{number}:{name}: {found}"
            for number, graph in enumerate(graphs)
            for name, job in enumerate(graph.jobs)
            if (found := _result(client, job)) != graph.values[name]
        ]
    starts, early = _order(fleet.marks, graphs)
    nodes = sum(len(graph.jobs) for graph in graphs)
    return Result(
        len(graphs),
        nodes,
        sum(len(graph.edges) for graph in graphs),
        kills,
        starts - nodes,
        wrong,
        early,
        time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class Graph:
    """One flow, and what its jobs must return."""

    jobs: list[Any]
    values: list[int]
    edges: list[tuple[int, int]]


def _enqueue(client: goose.Client, chance: random.Random, number: int, most: int) -> Graph:
    size = chance.randint(2, most)
    graph = Graph([], [], [])
    with client.flow() as flow:
        for name in range(size):
            parents = [n for n in range(name) if chance.random() < min(0.5, 2.0 / size)]
            outputs = [graph.jobs[parent].output for parent in parents]
            graph.jobs.append(flow.add(jobs.node, number, name, outputs))
            graph.values.append(name + sum(graph.values[parent] for parent in parents))
            graph.edges.extend((parent, name) for parent in parents)
    return graph


def _done(client: goose.Client, graphs: list[Graph]) -> bool:
    """Say whether every job has ended; looks at the last of a flow first, and no further than needed."""
    return all(client.record(job.id) for graph in graphs for job in reversed(graph.jobs))


def _result(client: goose.Client, job: Any) -> object:
    try:
        return client.result(job, 0)
    except goose.GooseError as error:
        return str(error)


def _order(marks: Path, graphs: list[Graph]) -> tuple[int, list[str]]:
    """Return how many runs began, and which jobs began before a parent had ended."""
    first_start: dict[tuple[int, int], int] = {}
    first_end: dict[tuple[int, int], int] = {}
    starts = 0
    for place, line in enumerate((marks / jobs.NODES).read_text().splitlines()):
        word, number, name = line.split()
        key = int(number), int(name)
        starts += word == "start"
        (first_start if word == "start" else first_end).setdefault(key, place)
    early = [
        f"{number}:{child}"
        for number, graph in enumerate(graphs)
        for parent, child in graph.edges
        if first_start.get((number, child), -1) < first_end.get((number, parent), 1 << 62)
    ]
    return starts, early
