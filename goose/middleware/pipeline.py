"""Work that follows from work: when a job is done, the next ones are enqueued.

The functions know nothing of each other. What follows what is said in one place, by a
`Pipeline`, which is a middleware::

    pipeline = Pipeline(client)
    pipeline.after(fetch, parse)                                    # parse(result of fetch)
    pipeline.after(parse, index, notify, args=lambda e: [(r,) for r in e.result])

Follow-up work is enqueued after the function has returned and before its job counts as done,
so none is lost. If that fails, the job is retried as a whole. If the worker dies in between,
the job runs again and enqueues again, but under the same ids: on a broker that remembers ids
while a job is stored that makes no second copy. Functions of a pipeline may run twice like any.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from goose.calls import name_of
from goose.jobs import Job
from goose.middleware.base import Execution

_IDS = uuid.UUID("9a3ac5a5-3a3c-4a9e-8f5b-2b8a1d3c7f10")


class Sealing(Protocol):
    """Makes jobs."""

    def seal(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Job[Any], Any]:
        """Return the job of a call."""
        ...


class Submits(Protocol):
    """As much of a `goose.Client` as is needed."""

    @property
    def sealer(self) -> Sealing:
        """Makes jobs by the client's options."""
        ...

    def submit(self, jobs: Iterable[Job[Any]], /) -> Any:
        """Store jobs under their own ids."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    functions: tuple[Callable[..., Any], ...]
    args: Callable[[Execution], Iterable[tuple[Any, ...]]]


def _the_result(execution: Execution) -> Iterable[tuple[Any, ...]]:
    return [(execution.result,)]


class Pipeline:
    """Middleware that enqueues what follows. Say all of it before the worker starts.

    Args:
        client: Where follow-up jobs go; bind options to it, such as a queue.
    """

    def __init__(self, client: Submits) -> None:
        self._client = client
        self._steps: dict[str, list[_Step]] = {}

    def after(
        self,
        function: Callable[..., Any],
        *following: Callable[..., Any],
        args: Callable[[Execution], Iterable[tuple[Any, ...]]] = _the_result,
    ) -> None:
        """Have each of *following* enqueued whenever a job of *function* has returned.

        Args:
            function: Whose jobs are followed.
            *following: What follows, each with the same arguments.
            args: Returns the arguments of each job to enqueue, from the execution with its
                ``args`` and its ``result``; by default one job with the result. Nothing
                follows if it returns nothing.
        """
        self._steps.setdefault(name_of(function), []).append(_Step(following, args))

    @contextmanager
    def __call__(self, execution: Execution) -> Generator[None]:
        """Enqueue what follows, once what is inside has returned."""
        yield
        steps = self._steps.get(execution.job.fn)
        if not steps or not execution.returned:
            return
        jobs: list[Job[Any]] = []
        for step in steps:
            for arguments in step.args(execution):
                for function in step.functions:
                    job, _ = self._client.sealer.seal(function, tuple(arguments), {})
                    # The same each time this execution is repeated, and of no other.
                    name = f"{execution.job.id}/{len(jobs)}/{job.fn}"
                    jobs.append(job.evolve(id=str(uuid.uuid5(_IDS, name))))
        if jobs:
            self._client.submit(jobs)
