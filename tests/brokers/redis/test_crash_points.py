"""A crash before and after every Redis command of every verb.

A proxy that knows where commands end kills the connection before the k-th command of a verb
arrives, or right after the server carried it out, and lets nothing more through: so it looks to
the server when the client's process dies there. This is done for every k until the verb gets
by without dying, with a fresh broker (which first says hello, looks at the server, and finds
the script cache empty) and with one that is warm.

After each of them every job must be as it was before the verb or as it is after it, in exactly
one state; the verb called once more by whoever did not hear the answer must end as if nothing
had happened; and everything must drain, each job once, leaving nothing behind.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.chaos.fleet import wait_until
from tests.chaos.resp import command_length
from tests.servers.redis import RedisServer

QUEUES = (Share("a"), Share("b"))
TTL = 600.0
HOLDER, HEIR, LAST = Session("holder"), Session("heir"), Session("last")
Snapshot = dict[str, tuple[object, ...]]


@dataclass
class Scene:
    """Jobs in every state, and who holds what."""

    ready: list[Envelope] = field(default_factory=list)
    scheduled: list[Envelope] = field(default_factory=list)
    dead: list[Envelope] = field(default_factory=list)
    lent: list[Delivery] = field(default_factory=list)
    new: list[Envelope] = field(default_factory=list)
    due: list[Envelope] = field(default_factory=list)


def envelope(name: str, queue: str = "a", **more: object) -> Envelope:
    """Return an envelope whose id is the same in every run."""
    return Envelope(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, name + queue)),
        queue=queue,
        body=name.encode(),
        **more,
    )


def build(broker: RedisBroker) -> Scene:
    """Store two jobs of each state in each queue."""
    scene = Scene()
    for session in (HOLDER, HEIR):
        broker.open(session, ttl=TTL)
    lent = [envelope(f"lent{n}", queue) for n in range(2) for queue in "ab"]
    broker.enqueue(lent)
    scene.lent = list(broker.dequeue(HOLDER, QUEUES, limit=4, wait=0))
    dead = [envelope(f"dead{n}", queue) for n in range(2) for queue in "ab"]
    broker.enqueue(dead)
    broker.bury([(d, d.envelope) for d in broker.dequeue(HOLDER, QUEUES, limit=4, wait=0)])
    scene.dead = dead
    scene.ready = [envelope(f"ready{n}", queue) for n in range(2) for queue in "ab"]
    broker.enqueue(scene.ready)
    scene.scheduled = [
        envelope(f"later{n}", queue, delay=900.0) for n in range(2) for queue in "ab"
    ]
    broker.schedule(scene.scheduled)
    scene.due = [envelope(f"due{n}", queue, delay=0.001) for n in range(2) for queue in "ab"]
    scene.new = [envelope(f"new{n}", queue) for n in range(2) for queue in "ab"]
    return scene


def later(delivery: Delivery, delay: float = 900.0) -> tuple[Delivery, Envelope]:
    """Return the next state of a job that failed: due later, in the other queue for one of b."""
    old = delivery.envelope
    return delivery, Envelope(id=old.id, queue="a", body=b"next", delay=delay)


def ids(envelopes: list[Envelope]) -> list[str]:
    return [each.id for each in envelopes]


Act = Callable[[RedisBroker, Scene], object]
FRESH = Session("fresh")
VERBS: dict[str, Act] = {
    "enqueue": lambda b, s: b.enqueue(s.new),
    "enqueue one": lambda b, s: b.enqueue(s.new[:1]),
    "schedule": lambda b, s: b.schedule(
        [envelope(e.body.decode(), e.queue, delay=90.0) for e in s.new]
    ),
    "dequeue": lambda b, s: b.dequeue(HEIR, QUEUES, limit=3, wait=0),
    "dequeue, weighted": lambda b, s: b.dequeue(
        HEIR, (Share("a", 2), Share("b", 1)), limit=4, wait=0
    ),
    "dequeue, asleep": lambda b, s: b.dequeue(HEIR, (Share("empty"),), limit=4, wait=0.01),
    "ack": lambda b, s: b.ack(s.lent),
    "release": lambda b, s: b.release(s.lent),
    "requeue": lambda b, s: b.requeue([later(d) for d in s.lent]),
    "requeue at once": lambda b, s: b.requeue([later(d, 0.0) for d in s.lent]),
    "bury": lambda b, s: b.bury([(d, e) for d, e in map(later, s.lent)]),
    "open": lambda b, s: b.open(FRESH, ttl=TTL),
    "heartbeat": lambda b, s: b.heartbeat(HOLDER, ttl=TTL),
    "end": lambda b, s: b.end(HEIR),
    "recover": lambda b, s: b.recover(HEIR, limit=3, dead=HOLDER),
    "recover the silent": lambda b, s: b.recover(HEIR, limit=100),
    "held": lambda b, s: b.held(HOLDER),
    "audit": lambda b, s: b.audit(HEIR, limit=100),
    "promote_due": lambda b, s: b.promote_due(limit=100),
    "queues": lambda b, s: b.queues(),
    "count": lambda b, s: b.count(State.READY),
    "page": lambda b, s: b.page(State.DEAD),
    "find": lambda b, s: b.find(s.ready[0].id),
    "delete": lambda b, s: b.delete(ids(s.ready), state=State.READY),
    "promote": lambda b, s: b.promote(ids(s.scheduled)),
    "prioritise": lambda b, s: b.prioritise(ids(s.ready)[::-1]),
    "purge": lambda b, s: b.purge(State.DEAD),
    "replay": lambda b, s: b.replay([Envelope(e.id, "a", b"again") for e in s.dead]),
}
TAKES = {"dequeue", "dequeue, weighted", "recover", "recover the silent"}
"""What is done again takes more, and so does not end where one call does."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", server.port), split=command_length) as made:
        yield made


@pytest.fixture
def direct(server: RedisServer) -> Iterator[RedisBroker]:
    broker = RedisBroker(server.url)
    yield broker
    broker.close()


def snapshot(broker: RedisBroker) -> Snapshot:
    """Return state, queue, body and holder of each job; each must be in exactly one state."""
    found: Snapshot = {}
    for state in State:
        items = broker.page(state, limit=1_000).items
        assert len(items) == broker.count(state), f"{state}: listing and count differ"
        for item in items:
            assert item.envelope.id not in found, f"{item.envelope.body!r} is in two states"
            found[item.envelope.id] = (state, item.envelope.queue, item.envelope.body, item.session)
            seen = broker.find(item.envelope.id)
            assert seen is not None
            assert seen.state is state
    return found


def begin(server: RedisServer, broker: RedisBroker, verb: str, *, warm: bool) -> Scene:
    """Return the same scene every time."""
    server.client.flushall()
    scene = build(broker)
    if verb == "promote_due":
        broker.schedule(scene.due)
        wait_until(lambda: _due(server) == 2, 5, "two jobs of queue b are due")
    if not warm:
        server.client.script_flush()
    return scene


def _due(server: RedisServer) -> int:
    seconds, micros = server.client.time()
    now = seconds * 1_000_000 + micros
    return server.client.zcount("goose:{default:b}:scheduled", "-inf", now)


def drained(broker: RedisBroker) -> list[str]:
    """Let the dead sessions' jobs be taken over, run all, and return what ran."""
    broker.open(LAST, ttl=TTL)
    for session in (HOLDER, HEIR, FRESH):
        while orphans := broker.recover(LAST, limit=100, dead=session):
            assert broker.release(orphans) == []
    assert broker.audit(LAST, limit=100) == []
    broker.promote(ids([item.envelope for item in broker.page(State.SCHEDULED).items]))
    ran = []
    while loans := broker.dequeue(LAST, QUEUES, limit=100, wait=0):
        ran += [loan.envelope.id for loan in loans]
        assert broker.ack(loans) == []
    assert broker.end(LAST)
    return ran


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "fresh"])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_crash_at_any_command_leaves_every_job_in_one_place(
    server: RedisServer, proxy: Proxy, direct: RedisBroker, verb: str, side: str, warm: bool
) -> None:
    """Each job is as before the verb or as after it, a second call mends it, and all drain once."""
    act = VERBS[verb]
    scene = begin(server, direct, verb, warm=warm)
    before = snapshot(direct)
    act(direct, scene)
    after = snapshot(direct)
    cut = proxy.cut_before_request if side == "before" else proxy.cut_before_reply

    for k in itertools.count(1):
        scene = begin(server, direct, verb, warm=warm)
        proxy.heal()
        victim = RedisBroker(f"redis://127.0.0.1:{proxy.port}/0")
        if warm:
            victim.count(State.READY)
        cut(k, then="refuse")
        try:
            act(victim, scene)
        except BrokerUnavailable:
            assert not proxy.armed
        died = not proxy.armed
        victim.close()
        proxy.heal()
        where = f"{verb}, {side} command {k}"
        now = snapshot(direct)
        for id_ in before.keys() | after.keys() | now.keys():
            assert now.get(id_) in (before.get(id_), after.get(id_)), where
        if verb not in TAKES:
            again(direct, verb, act, scene)
            assert after == snapshot(direct), where
            now = after
        kept = {id_ for id_, at in now.items() if at[0] is State.DEAD}
        assert sorted(now.keys() - kept) == sorted(drained(direct)), where
        left = {key.decode() for key in server.client.keys("*")}
        assert not {
            key for key in left if ":held:" in key or key.endswith((":ready", ":scheduled"))
        }
        if not died:
            break
    assert k > 1, "nothing was sent"


def again(broker: RedisBroker, verb: str, act: Act, scene: Scene) -> None:
    """Call a verb that may have happened already."""
    if verb == "open":
        with contextlib.suppress(BrokerError):  # it exists, then
            act(broker, scene)
    else:
        act(broker, scene)
