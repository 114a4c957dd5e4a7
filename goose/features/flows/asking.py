"""From options and arguments to the trait ``flow``.

``{"after": {ID: POLICY}, "fill": [[ID, PATH], ...], "keys": {DIGEST: [POLICY, SHOWN]}}``: which jobs
it depends on, where in its arguments what they return belongs, and whose holders it depends on, too.
Until it runs there is null. A path begins with ``args`` or ``kwargs``, like ``["args", 0, 2]``. Who
holds a key is found when the job is enqueued (see `claim`) and kept beside the job, not on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from goose._edges import After, Key, OnFailure, edges_of
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
        parents = edges_of(given(*call.args, **call.kwargs)) if callable(given) else given or ()
        return depending(job, parents, ())

    return prepare


def depending(job: Job[Any], parents: tuple[After, ...], holes: tuple[Hole, ...]) -> Job[Any]:
    """Return *job* as a part of a flow, after *parents* and those that fill its *holes*.

    Raises:
        CallError: A key is of a function or a call that cannot be stored.
    """
    after: dict[str, JSON] = {hole.job_id: "cancel" for hole in holes}
    after |= cast("Mapping[str, JSON]", parents_of(job))
    after |= {each.job: each.on_failure for each in parents if isinstance(each.job, str)}
    keys = {**cast("Mapping[str, JSON]", keys_of(job)), **_keys(parents)}
    fill = [*_trait(job).get("fill", []), *([hole.job_id, list(hole.path)] for hole in holes)]
    made: dict[str, Any] = {}
    if after:
        made["after"] = after
    if fill:
        made["fill"] = fill
    if keys:
        made["keys"] = keys
    return once(job.evolve(traits={"result": KEPT, **job.traits, NAME: made}))


def _keys(parents: tuple[After, ...]) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for parent in parents:
        if isinstance(parent.job, Key):
            from goose.features.uniques.keys import identify  # not every flow's

            digest, shown = identify(parent.job)
            found[digest] = [parent.on_failure, shown]
    return found


def parents_of(job: Job[Any]) -> Mapping[str, OnFailure]:
    """Return, by id, the jobs that *job* names as what it depends on."""
    return cast("Mapping[str, OnFailure]", _trait(job).get("after", {}))


def keys_of(job: Job[Any]) -> Mapping[str, tuple[OnFailure, str]]:
    """Return, by digest, the keys whose holders *job* depends on, and how people read each."""
    return cast("Mapping[str, tuple[OnFailure, str]]", _trait(job).get("keys", {}))


def _trait(job: Job[Any]) -> Mapping[str, Any]:
    trait = job.traits.get(NAME)
    return trait if isinstance(trait, dict) else {}
