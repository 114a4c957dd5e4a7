"""Profiles the jobs somebody asked to have profiled, with Python's own profiler.

::

    before_enqueue = ["goose.middleware.profiling:note"]            # in goose.toml
    middleware = ["goose.middleware.profiling:profiling"]

    with profiled():
        goose.enqueue(make_report, 7)

A profile is a file in the worker's directory ``profiles`` (`Profiling` takes another), named
after function, job and attempt; ``python -m pstats FILE`` reads it. Jobs nobody asked about
cost a look into a dictionary. Python has one profiler: a job that comes while another is being
profiled, where that shuts others out, runs without, and the log says so.
"""

from __future__ import annotations

import cProfile
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from goose._interrupts import lower
from goose.jobs import Job
from goose.middleware.base import Execution

logger = logging.getLogger("goose.profiling")

KEY = "profile"
"""Is true in the ``meta`` of a job that is to be profiled."""

_asked: ContextVar[bool] = ContextVar("goose.profiling", default=False)


@contextmanager
def profiled() -> Generator[None]:
    """Have the jobs profiled that are enqueued inside."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def note(job: Job[Any]) -> Job[Any]:
    """Return *job*, marked if it is to be profiled; give it as ``before_enqueue``."""
    return job.evolve(meta={**job.meta, KEY: True}) if _asked.get() else job


def _is_asked(execution: Execution) -> bool:
    return execution.job.meta.get(KEY) is True


class Profiling:
    """Middleware that writes profiles. Thread-safe.

    Args:
        folder: Where to; made when it is needed.
        when: Says whether a job is profiled; by default those that were marked.
    """

    def __init__(
        self, folder: str | Path = "profiles", *, when: Callable[[Execution], bool] = _is_asked
    ) -> None:
        self._folder = Path(folder)
        self._when = when

    def __call__(self, execution: Execution) -> Any:
        """Return what profiles this execution, or does nothing."""
        return self._profile(execution) if self._when(execution) else nullcontext()

    @contextmanager
    def _profile(self, execution: Execution) -> Generator[None]:
        job, profile = execution.job, cProfile.Profile()
        lower()  # whatever interrupted some thread of this process before, the job's code too
        try:
            profile.enable()
        except (ValueError, RuntimeError) as error:
            logger.warning("job %s is not profiled: %s", job.id, error, extra={"job_id": job.id})
            yield
            return
        try:
            yield
        finally:
            profile.disable()
            self._write(job, profile)

    def _write(self, job: Job[Any], profile: cProfile.Profile) -> None:
        name = f"{job.fn.replace(':', '.')}-{job.id}-{job.attempt}.pstats"
        # A job's id comes from outside, and must not lead out of the folder.
        path = self._folder / name.replace("/", "_")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            profile.dump_stats(path)
        except OSError as error:
            logger.warning("the profile of job %s cannot be written: %s", job.id, error)
        else:
            logger.info("job %s is profiled in %s", job.id, path, extra={"job_id": job.id})


profiling = Profiling()
"""A `Profiling` that writes into ``profiles``."""
