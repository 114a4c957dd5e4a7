"""From options and arguments to the trait ``flow``.

``{"after": {ID: POLICY}, "fill": [[ID, PATH], ...]}``: which jobs it depends on, and where in its
arguments what they return belongs; until it runs there is null. A path begins with ``args`` or
``kwargs``, like ``["args", 0, 2]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from goose._edges import After, parents_of
from goose._holes import Hole
from goose.calls import Call
from goose.features.once import once
from goose.jobs import JSON, Job
from goose.options import RESULT_SECONDS, Options

NAME = "flow"
KEPT = {"ttl": RESULT_SECONDS}


def asked(chosen: Options) -> Callable[[Job[Any], Call[Any]], Job[Any]]:
    """Return what has new jobs depend on those in *chosen*."""

    def prepare(job: Job[Any], call: Call[Any]) -> Job[Any]:
        given = chosen.depends_on
        parents = parents_of(given(*call.args, **call.kwargs)) if callable(given) else given or ()
        return depending(job, parents, ())

    return prepare


def depending(job: Job[Any], parents: tuple[After, ...], holes: tuple[Hole, ...]) -> Job[Any]:
    """Return *job* as a part of a flow, after *parents* and those that fill its *holes*."""
    trait = cast("dict[str, Any]", job.traits.get(NAME) or {})
    after: dict[str, JSON] = {hole.job_id: "cancel" for hole in holes}
    after |= cast("Mapping[str, JSON]", trait.get("after", {}))
    after |= {parent.job_id: parent.on_failure for parent in parents}
    fill = [*trait.get("fill", []), *([hole.job_id, list(hole.path)] for hole in holes)]
    made: dict[str, Any] = {}
    if after:
        made["after"] = after
    if fill:
        made["fill"] = fill
    return once(job.evolve(traits={"result": KEPT, **job.traits, NAME: made}))
