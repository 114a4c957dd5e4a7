"""The trait ``flow``: fills in what other jobs returned, and lets go of it after.

What its job depends on has ended before the job is ever sent (see `book`), so nothing is awaited here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from goose._holes import filled
from goose.errors import StoreError
from goose.features.flows.asking import NAME
from goose.features.flows.parting import Parting
from goose.features.results.records import key_of, read
from goose.features.results.trait import ttl_of
from goose.features.traits import Admission, Defer, Ended, Fill, Finish, Tools
from goose.jobs import JSON, Job
from goose.stores.base import Get


class Flow:
    """See `goose.features.traits.Trait`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Give those that take what others returned just that."""
        found: dict[str, Admission] = {}
        for job in jobs:
            trait = job.traits.get(NAME)
            fill = trait.get("fill") if isinstance(trait, dict) else None
            if fill:
                found[job.id] = self._filled(job, cast("list[Any]", fill))
        return found

    def _filled(self, job: Job[Any], fill: list[Any]) -> Admission:
        values: dict[str, JSON] = {}
        try:
            for parent in {parent for parent, _ in fill}:
                [body] = self._tools.store().apply([Get(key_of(parent))])
                record = None if body is None else read(body)
                if record is None or record.lost:
                    why = record.lost if record else "it is not kept any more"
                    return Finish("dead", f"no_input: what job {parent} returned is missing: {why}")
                values[parent] = record.value
            args, kwargs = filled(
                job.args, job.kwargs, [(path, values[parent]) for parent, path in fill]
            )
        except (StoreError, LookupError, TypeError, ValueError) as error:
            return Defer(60.0, f"its arguments cannot be filled in: {error}")
        return Fill(args, kwargs)

    def ended(self, endings: Sequence[Ended]) -> None:
        """Let go of what they depended on."""
        parting = Parting(self._tools.store())
        for end in endings:
            parting.child_ended(end.job, end.ending, ttl_of(end.job))
