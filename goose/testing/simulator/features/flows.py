"""Flows: a job comes after those it depends on, and is cancelled if one of them is dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import goose.features.flows.book as flows
from goose import after
from goose._edges import OnFailure
from goose.brokers.memory import MemoryBroker
from goose.errors import EnqueueError
from goose.flowing import Flow
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.ledger import Entry

GOOD = {"done", "skipped"}


@dataclass(slots=True, eq=False)
class Graph:
    """One flow as it is to be: parts, and what each depends on."""

    at: float
    parents: dict[int, dict[int, OnFailure]]
    """By number, in an order in which they can run."""


@dataclass(slots=True, eq=False)
class Made:
    """A graph's jobs, made by one client."""

    graph: Graph
    ids: dict[int, str] = field(default_factory=dict)
    stored: bool = False
    """Whether that client knows that they are stored."""


class Enqueueing(Task):
    """Enqueues a graph, again and again until a client knows that it is stored."""

    def __init__(self, act: Flows, graph: Graph) -> None:
        super().__init__(graph.at)
        self._act = act
        self._graph = graph
        self._flow: Flow | None = None
        self._made: Made
        self._failed: EnqueueError | None = None

    def step(self, caller: Caller) -> None:
        """Enqueue it, or submit what was not confirmed."""
        if self._flow is None:
            self._flow = self._make(caller)
        try:
            if self._failed is None:
                self._flow.enqueue()
            else:
                caller.client.submit(self._failed.jobs)
        except EnqueueError as error:
            self._failed = error
            raise
        self._made.stored = True

    def _make(self, caller: Caller) -> Flow:
        flow, act = caller.client.flow(), self._act
        made = self._made = act.made(self._graph)
        for number, parents in self._graph.parents.items():
            edges = [after(made.ids[each], on_failure=policy) for each, policy in parents.items()]
            after_them = flow.using(depends_on=edges, result=True)
            made.ids[number] = after_them.add(act.fn(number), number).id
        act.know(made)
        return flow

    def forget(self) -> None:
        """See `Task.forget`."""
        self._flow = self._failed = None


class Flows(Act):
    """One or two small graphs."""

    once = True
    copies = True

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self._graphs = [self._draw(cast) for _ in range(cast.random.randint(1, 2))]
        self.all: list[Made] = []
        self.of: dict[str, tuple[Made, int]] = {}

    def _draw(self, cast: Cast) -> Graph:
        chance = cast.random
        numbers = cast.take(chance.randint(2, 6))
        if chance.random() < 0.4:  # else few come to their end
            cast.spare(numbers)
        policies: Sequence[OnFailure] = ("cancel", "cancel", "cancel", "run", "wait")
        parents: dict[int, dict[int, OnFailure]] = {}
        for place, number in enumerate(numbers):
            few = chance.sample(numbers[:place], min(place, chance.randint(0, 3)))
            parents[number] = {each: chance.choice(policies) for each in few}
        return Graph(chance.uniform(0.0, 30.0), parents)

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [number for graph in self._graphs for number in graph.parents]

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Enqueueing(self, graph) for graph in self._graphs]

    def made(self, graph: Graph) -> Made:
        """Return what a client is about to make of *graph*."""
        self.all.append(Made(graph))
        return self.all[-1]

    def know(self, made: Made) -> None:
        """Note the jobs of a client."""
        self.of.update({job_id: (made, number) for number, job_id in made.ids.items()})
        self.ledger.doubt(made.ids.values())

    # --- what must hold -------------------------------------------------------------------

    def _parents(self, job_id: str) -> Mapping[str, OnFailure]:
        made, number = self.of[job_id]
        return {made.ids[each]: policy for each, policy in made.graph.parents[number].items()}

    def fates(self, job_id: str) -> set[str]:
        """Return how that job has ended, or that it is to be cancelled, or waits for ever."""
        entry = self.ledger.entries.get(job_id)
        if entry is not None:
            return self.ledger.endings(entry)
        fates = set[str]()
        for parent, policy in self._parents(job_id).items():
            ended = self.fates(parent)
            gone = "cancelled" in ended
            if ("dead" in ended and policy == "cancel") or (gone and policy != "run"):
                fates.add("cancelled")
            if "waits" in ended or ("dead" in ended and policy == "wait"):
                fates.add("waits")
        return fates

    def stored(self, job_id: str, entry: Entry) -> None:
        """Check that all that a job depends on has ended, well or as its policy allows."""
        self._check(job_id, entry, "is sent")

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check the same again."""
        self._check(job_id, entry, "runs")

    def _check(self, job_id: str, entry: Entry, what: str) -> None:
        made, number = self.of[job_id]
        for parent, policy in self._parents(job_id).items():
            fates = self.fates(parent) - {"waits"}
            if not (fates if policy == "run" else fates & GOOD):
                parents = made.graph.parents[number]
                self.ledger.wrong(f"job {number} {what}, and of {parents} one is {fates or 'open'}")

    def state(self, job_id: str) -> str:
        """Return how the store has that job, empty if it has not."""
        node = flows.Flows(self.store, MemoryBroker()).node(job_id)
        return "" if node is None else node.state

    @property
    def is_done(self) -> bool:
        """See `Act.is_done`."""
        return all(
            job_id in self.ledger.entries or self.state(job_id) in self.fates_in_store(job_id)
            for made in self.all
            if made.stored
            for job_id in made.ids.values()
        )

    def fates_in_store(self, job_id: str) -> set[str]:
        """Return how the store may have a job that was never sent, in the end."""
        fates = self.fates(job_id)
        states = {"cancelled": "cancelled", "waits": "waiting"}
        return {state for fate, state in states.items() if fate in fates}

    def close(self) -> None:
        """Check that each job of a flow that was enqueued has run, or had a reason not to."""
        for made in self.all:
            if not made.stored:
                continue
            self.ledger.seen["a flow was enqueued"] += 1
            for number, job_id in made.ids.items():
                if job_id in self.ledger.entries:
                    self.ledger.seen["a job of a flow ran"] += 1
                    continue
                state, meant = self.state(job_id), self.fates_in_store(job_id)
                if state not in meant:
                    self.ledger.wrong(f"job {number} of a flow is {state}, not one of {meant}")
                self.ledger.seen[f"a job of a flow is {state}"] += 1
