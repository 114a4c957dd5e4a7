"""From options and arguments to the trait ``flow``.

``{"after": {ID: POLICY}, "fill": [[ID, PATH], ...], "keys": {DIGEST: [POLICY, SHOWN]}}``: which jobs
it depends on, where in its arguments what they return belongs, and whose holders it depends on, too.
Until it runs there is null. A path begins with ``args`` or ``kwargs``, like ``["args", 0, 2]``. Who
holds a key is found when the job is enqueued (see `claim`) and kept beside the job, not on it.

A unique job of a flow may be answered with one that is there already. Whoever named it then waits for
that one, by its id; ``"held": {ID: [DIGEST, SHOWN]}`` says which key shows that it is stored where the
broker does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from goose._edges import After, Key, OnFailure, edges_of
from goose._holes import Hole
from goose.calls import Call
from goose.features.once import once
from goose.jobs import JSON, Envelope, Job, seal
from goose.options import RESULT_SECONDS, Options

NAME = "flow"
_STRICT: tuple[OnFailure, ...] = ("cancel", "wait", "run")
KEPT = {"ttl": RESULT_SECONDS}
Sealed: TypeAlias = tuple[Job[Any], Envelope]


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


def relinked(sealed: Sealed, answered: Mapping[str, tuple[Job[Any], Job[Any]]]) -> Sealed:
    """Return a job that waits for those who have the keys of unique jobs that it named and that are not stored.

    Args:
        sealed: The job and its envelope.
        answered: By id, unique jobs that were enqueued with it, and those that were there already.
    """
    job, envelope = sealed
    if not answered.keys() & parents_of(job).keys():
        return sealed
    from goose.features.uniques.records import trait_of  # not every flow's

    made: dict[str, Any] = {**_trait(job), "after": {}, "held": {**held_of(job)}}
    for named, policy in parents_of(job).items():
        id_ = named
        if named in answered:
            unique, holder = answered[named]
            trait, id_ = trait_of(unique), holder.id
            made["held"][id_] = [trait.digest, trait.shown]
        # Two that it named may be one by now; then the stricter policy goes for it.
        made["after"][id_] = min(made["after"].get(id_, policy), policy, key=_STRICT.index)
    made["fill"] = [
        [answered[id_][1].id if id_ in answered else id_, path]
        for id_, path in made.get("fill", [])
    ]
    job = job.evolve(traits={**job.traits, NAME: made})
    return job, seal(job, delay=envelope.delay, due_at=envelope.due_at, max_bytes=1 << 62)


def parents_of(job: Job[Any]) -> Mapping[str, OnFailure]:
    """Return, by id, the jobs that *job* names as what it depends on."""
    return cast("Mapping[str, OnFailure]", _trait(job).get("after", {}))


def keys_of(job: Job[Any]) -> Mapping[str, tuple[OnFailure, str]]:
    """Return, by digest, the keys whose holders *job* depends on, and how people read each."""
    return cast("Mapping[str, tuple[OnFailure, str]]", _trait(job).get("keys", {}))


def held_of(job: Job[Any]) -> Mapping[str, tuple[str, str]]:
    """Return, by id, those of its parents that had a key when it was enqueued: digest, and how people read it."""
    return cast("Mapping[str, tuple[str, str]]", _trait(job).get("held", {}))


def _trait(job: Job[Any]) -> Mapping[str, Any]:
    trait = job.traits.get(NAME)
    return trait if isinstance(trait, dict) else {}
