"""Features with one rule taken away; the simulator must find each of them out."""

import contextlib
import dataclasses
import json
import math

from goose.access import Access
from goose.brokers.base import Inspector
from goose.errors import BrokerError, Postpone
from goose.features import checkpoints
from goose.features.asking import Claimed
from goose.features.batches import members
from goose.features.batches import trait as members_of_batches
from goose.features.batches.book import Batches
from goose.features.batches.trait import BatchTrait
from goose.features.checkpoints import Checkpoints
from goose.features.controls import Controls, Orders
from goose.features.crons.entries import Cron
from goose.features.crons.firing import Firing
from goose.features.flows import book
from goose.features.flows.book import Flows
from goose.features.limits.leases import Leases
from goose.features.limits.trait import Limits
from goose.features.once import Once
from goose.features.results import Results, progress
from goose.features.results.progress import ProgressLog
from goose.features.traits import Defer
from goose.features.uniques import claims
from goose.features.uniques.holders import Unique
from goose.features.uniques.records import Record, trait_of
from goose.stores.base import Get, Put
from goose.worker import execution, traits
from goose.worker.engine import Engine
from goose.worker.settle import Settler


def trait(name, kind):
    """Return what makes the trait of that name one of *kind*, in every engine."""

    def change(engine):
        engine.traits.of(name).__class__ = kind

    return change


class KeyOfTheCrashed(Unique):
    """A job that is dead of its crashes keeps its key."""

    def ended(self, endings):
        super().ended([end for end in endings if end.reason != "crashed"])


class KeyForAnybody(Unique):
    """A job starts whoever has its key."""

    def admit(self, jobs):
        return {}


class FailureIsTheEnd(BatchTrait):
    """A member that failed counts as dead, though it is going to run again."""

    def retried(self, jobs):
        self._report((job, members.DEAD) for job in jobs)


class DoneAgain(Once):
    """That a job was done is not noted."""

    def ended(self, endings):
        pass


class NoLease(Limits):
    """A job starts whether there is a place or not."""

    def admit(self, jobs):
        return {}


class NothingKept(Limits):
    """A lease runs out under a job that takes longer."""

    def tick(self):
        pass


class NothingGivenBack(Limits):
    """The place of a job that has ended is not given back, and kept alive for good."""

    def ended(self, endings):
        pass


class LapseOnly(Limits):
    """The place of a job that has ended is free only when its lease was doubted for long."""

    def ended(self, endings):
        self._forget([end.job.id for end in endings])


def passes_over_at_once(monkeypatch):
    """That a lease has lapsed is enough to have its place."""

    def living(leases, now, ttl):
        return {id_: lease for id_, lease in leases.held.items() if lease.until > now}

    monkeypatch.setattr(Leases, "doubted", living)


def never_passes_over(monkeypatch):
    """The place of a dead process is taken for good."""
    monkeypatch.setattr(Leases, "doubted", lambda leases, now, ttl: dict(leases.held))


class TellsAfterwards(Settler):
    """Traits are told of an end once the broker has forgotten the job."""

    def __init__(self, settler):
        vars(self).update(vars(settler))
        self._late = []

    def _tell(self, now):
        batch, self._untold = self._untold, []
        self._late += batch
        self._batch(batch)

    def step(self, now):
        late, self._late = self._late, []
        if late:
            kept = self._tell_traits(late)
            self._late = [each for each in late if each.delivery.envelope.id in kept]
        return super().step(now)


def tells_afterwards(engine):
    """A crash between a settle and what follows from it loses that for good."""
    engine.settler = TellsAfterwards(engine.settler)


def forgets_claims_of_nobody(monkeypatch):
    """A claim whose client has died is for ever."""
    monkeypatch.setattr(claims, "CLAIM", math.inf)


def forgets_to_call_back(monkeypatch):
    """Who dies over the callbacks leaves them to nobody: an ending claimed once is claimed for good."""
    monkeypatch.setattr("goose.features.batches.records.CLAIM", math.inf)
    monkeypatch.setattr(Batches, "sweep", lambda self: None)


def ignores_a_parent(monkeypatch):
    """One parent that has ended is enough."""

    def told(node, parent, edge):
        policy, _ = node.parents[parent]
        others = {other: (kept, "ok") for other, (kept, _) in node.parents.items()}
        return dataclasses.replace(node, parents={**others, parent: (policy, edge)})

    monkeypatch.setattr("goose.features.flows.records.Node.told", told)


def cancels_nothing(monkeypatch):
    """What depends on a dead job is not told that it is cancelled."""
    monkeypatch.setattr(Flows, "cancel", lambda self, child, reason: None)


def names_a_fire_by_chance(monkeypatch):
    """Each attempt to fire an instant makes a job of its own."""
    fire = Cron.fire
    again = []

    def unnamed(cron, due_at, now):
        again.append(due_at)
        job = fire(cron, due_at, now)
        return job.evolve(id=f"{job.id[:-1]}.{len(again):06}Z")

    monkeypatch.setattr(Cron, "fire", unnamed)


def fires_nothing(monkeypatch):
    """An instant is noted as fired, and its job is never stored."""
    monkeypatch.setattr(Firing, "_enqueue", lambda *args: None)


def forgets_debts(monkeypatch):
    """A claim of an instant is not stored with it, so whoever dies over it leaves it undone.

    The entries are such that are fired often, and want all of their instants.
    """
    monkeypatch.setattr("goose.testing.simulator.features.crons.EVERY", (5,))
    monkeypatch.setattr("goose.testing.simulator.features.crons.POLICIES", ("all",))
    claim = Cron.claim

    def careless(cron, now, by):
        found = claim(cron, now, by)
        return found and (dataclasses.replace(found[0], pending=()), found[1])

    monkeypatch.setattr(Cron, "claim", careless)


class NothingOfTheDead(Results):
    """How a job died is not kept."""

    def ended(self, endings):
        super().ended([end for end in endings if end.ending != "dead"])


class HeldForNoTime(Unique):
    """A key that is held for a time is given back as any other, at the end of its job."""

    def ended(self, endings):
        for end in endings:
            self._release(end.job.id, trait_of(end.job))


def asks_for_the_record_once(monkeypatch):
    """A job that ends between a look for its record and one for itself is said to be unknown."""
    monkeypatch.setattr(Access, "_ended_meanwhile", lambda self, job_id: "unknown")


def looks_for_the_record_first(monkeypatch):
    """A job that ends between two looks is taken for gone."""

    def is_gone(access, job_id):
        return not access.record(job_id) and access.broker.find(job_id) is None

    def blind(access, job_id):
        return isinstance(access.broker, Inspector) and is_gone(access, job_id)

    monkeypatch.setattr(Access, "is_gone", blind)


def paces_nothing(monkeypatch):
    """A job starts whatever the line says."""
    monkeypatch.setattr("goose.features.limits.trait.paced", lambda *args: ({}, {}))


def moves_the_line_blindly(monkeypatch):
    """Where the line has come to is written over what another made of it meanwhile."""
    monkeypatch.setattr(
        "goose.features.limits.pacing.Swap", lambda key, old, new, ttl: Put(key, new, ttl)
    )


def waits_by_attempts(monkeypatch):
    """To be sent away costs an attempt."""
    later = traits._later

    def costly(work, seconds, reason):
        work.job = work.job.evolve(attempt=work.job.attempt + 1)
        return later(work, seconds, reason)

    monkeypatch.setattr(traits, "_later", costly)


def forgets_the_superseded(monkeypatch):
    """Once the last call has started, those before it are free to start, too."""
    left = Record.left
    monkeypatch.setattr(
        Record,
        "left",
        lambda *args, **more: dataclasses.replace(left(*args, **more), superseded=()),
    )


def starts_before_it_is_quiet(monkeypatch):
    """A debounced job does not wait for further calls."""
    admission = Unique._admission

    def hasty(unique, job):
        answer = admission(unique, job)
        return None if isinstance(answer, Defer) and "quiet" in answer.reason else answer

    monkeypatch.setattr(Unique, "_admission", hasty)


def holds_for_too_long(monkeypatch):
    """A key that is held for a time is held for thrice as long."""
    monkeypatch.setattr(claims, "ttl_of", lambda trait, **_: 3 * trait.seconds)


def fires_without_the_key(monkeypatch):
    """A unique entry fires whether its key is held or not."""
    monkeypatch.setattr("goose.features.crons.firing.claimed", lambda sealed, *_: Claimed(sealed))


def keeps_the_key(monkeypatch):
    """A job that has ended keeps its key, where nobody can see that it is gone."""
    monkeypatch.setattr(Unique, "ended", lambda self, endings: None)


def pauses_nothing(monkeypatch):
    """A queue that is paused is served."""
    monkeypatch.setattr(Orders, "pause", lambda orders, queues, now: orders)


def reads_no_marks(monkeypatch):
    """Workers never hear which jobs are to end."""
    monkeypatch.setattr(Controls, "marks", lambda self: {})


def begins_anew(monkeypatch):
    """No run asks where the one before it came to."""
    monkeypatch.setattr(Checkpoints, "_get", lambda self, job: None)


def keeps_only_once(monkeypatch):
    """A cursor is stored where there is none yet."""

    def put(checkpoints, id_, value):
        checkpoints._store().apply([Put(f"checkpoint:{id_}", value, only_if_absent=True)])

    monkeypatch.setattr(Checkpoints, "_put", put)


def keeps_all_in_one_place(monkeypatch):
    """The cursor of a job is that of another one, too, and they are enqueued at one instant."""
    monkeypatch.setattr(checkpoints, "_key", lambda id_: "checkpoint:all")
    get = Checkpoints._get

    def anybodys(checkpoints, job):
        [value] = checkpoints._store().apply([Get("checkpoint:all")])
        return get(
            checkpoints, job.evolve(enqueued_at=json.loads(value or "{}").get("enqueued_at", 0))
        )

    monkeypatch.setattr(Checkpoints, "_get", anybodys)


def forgets_with_each_run(monkeypatch):
    """The cursor goes with a run, whether that has ended the job or not."""
    settled = Engine._on_settled

    def careless(engine, batch, lost):
        settled(engine, batch, lost)
        engine.checkpoints.ended(each.delivery.envelope.id for each in batch)

    monkeypatch.setattr(Engine, "_on_settled", careless)


def forgets_no_cursor(monkeypatch):
    """The cursor of a job that is done is left to time."""
    monkeypatch.setattr(Checkpoints, "ended", lambda self, ids: None)


def postpones_by_attempts(monkeypatch):
    """Who gives himself back at a deploy pays for it."""
    decide = execution.decide

    def costly(job, error, *args, **more):
        found = decide(job, error, *args, **more)
        if isinstance(error, Postpone):
            later = found.next.evolve(attempt=job.attempt + 1)
            found = dataclasses.replace(found, next=later)
        return found

    monkeypatch.setattr(execution, "decide", costly)


def says_it_after_others(monkeypatch):
    """What a run has said is written however long it is over. Words wait for longer than they do."""
    monkeypatch.setattr(progress, "EVERY", 15.0)
    monkeypatch.setattr(ProgressLog, "ended", lambda self, job_id, final: None)


def says_nothing_twice(monkeypatch):
    """What could not be written is not tried again."""
    write = ProgressLog._write

    def once(log, news):
        with contextlib.suppress(BrokerError):
            write(log, news)

    monkeypatch.setattr(ProgressLog, "_write", once)


def cancels_no_batch(monkeypatch):
    """Members of a cancelled batch start."""
    monkeypatch.setattr(BatchTrait, "_is_cancelled", lambda self, id_: False)


def counts_no_cancelled(monkeypatch):
    """A member that is cancelled is not counted as an end."""
    ended = BatchTrait.ended

    def some(trait, endings):
        ended(trait, [end for end in endings if end.ending != "cancelled"])

    monkeypatch.setattr(BatchTrait, "ended", some)


def counts_cancelled_as_deleted(monkeypatch):
    """A member that is cancelled counts as one that was deleted."""
    monkeypatch.setitem(members_of_batches._KINDS, "cancelled", members.DELETED)


def counts_the_last_word(monkeypatch):
    """A member that was done is cancelled once somebody says so."""
    joined = members.joined

    def careless(value, reports):
        found = bytearray(joined(value, reports))
        for place, kind in reports.items():
            if kind == members.CANCELLED:
                found[members.HEAD + place] = kind
        return bytes(found)

    monkeypatch.setattr(members, "joined", careless)


def cancels_callbacks(monkeypatch):
    """What answers a batch that is cancelled ends with it."""

    def membership(job):
        trait = job.traits.get("batch")
        return trait and (trait["id"], trait.get("n", 0), bool(trait.get("again")))

    monkeypatch.setattr(members_of_batches, "membership", membership)


def stops_nothing(monkeypatch):
    """A job that waits is said to be stopped, and waits on."""
    monkeypatch.setattr(Flows, "stop", lambda self, job_id: "stopped")


def stops_what_leaves(monkeypatch):
    """A job that somebody is about to send is said to be stopped, and is sent."""
    stop = Flows.stop
    said = {"leaving": "stopped"}
    monkeypatch.setattr(Flows, "stop", lambda self, id_: said.get(found := stop(self, id_), found))


def stops_without_a_word(monkeypatch):
    """What depends on a job that is stopped is not told."""
    stop = Flows.stop

    def silent(flows, job_id):
        told, flows._ended = flows._ended, lambda endings: None
        try:
            return stop(flows, job_id)
        finally:
            flows._ended = told

    monkeypatch.setattr(Flows, "stop", silent)


def finishes_no_stop(monkeypatch):
    """Who dies while he stops a job leaves it to nobody."""
    monkeypatch.setattr("goose.features.flows.stops.finish", lambda tools, troubles: None)


def takes_cancelled_for_done(monkeypatch):
    """What depends on a cancelled job runs, whatever its edge says."""
    monkeypatch.setitem(book._EDGES, "cancelled", "ok")
