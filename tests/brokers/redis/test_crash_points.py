"""A crash before and after every Redis command of every verb.

A proxy that knows where commands end kills the connection before the k-th command of a verb
arrives, or right after the server carried it out, and lets nothing more through: so it looks to
the server when the client's process dies there. This is done for every k until the verb gets
by without dying, with a fresh broker (which first says hello, looks at the server, and finds
the script cache empty) and with one that is warm.

After each of them every job must be as it was before the verb or as it is after it, in exactly
one state; the verb called once more by whoever did not hear the answer must end as if nothing
had happened; and everything must drain, each job once, leaving nothing behind.

On a Cluster some verbs are several steps, on several nodes. There a job that moves to another
queue may be in both after a crash, and never in none.
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
from tests.servers.redis_cluster import RedisCluster

QUEUES = (Share("a"), Share("b"))
TTL = 600.0
SOON = 0.1
"""Seconds until a job is due for which a dequeue waits."""
HOLDER, HEIR, LAST = Session("holder"), Session("heir"), Session("last")
Snapshot = dict[tuple[str, str], tuple[object, ...]]


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
    "dequeue, woken": lambda b, s: b.dequeue(HEIR, (Share("soon"),), limit=4, wait=1.0),
    "ack": lambda b, s: b.ack(s.lent),
    "release": lambda b, s: b.release(s.lent),
    "requeue": lambda b, s: b.requeue([later(d) for d in s.lent]),
    "requeue at once": lambda b, s: b.requeue([later(d, 0.0) for d in s.lent]),
    "bury": lambda b, s: b.bury([(d, e) for d, e in map(later, s.lent)]),
    "open": lambda b, s: b.open(FRESH, ttl=TTL),
    "heartbeat": lambda b, s: b.heartbeat(HOLDER, ttl=TTL),
    "end": lambda b, s: b.end(HEIR),
    # All of them: which ones fewer would be is another question where a node is missing.
    "recover": lambda b, s: b.recover(HEIR, limit=4, dead=HOLDER),
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
LOOKS = {"held", "queues", "count", "page", "find", "dequeue, asleep"}
"""What changes nothing."""
TAKES = {"dequeue", "dequeue, weighted", "dequeue, woken", "recover", "recover the silent"}
"""What is done again takes more, and so does not end where one call does."""


class World:
    """One server or a cluster, and the proxies through which it dies for a client."""

    def __init__(
        self, servers: list[RedisServer], proxies: list[Proxy], url: str, kind: str
    ) -> None:
        self.servers = servers
        self.proxies = proxies
        self.url = url
        self.kind = kind
        for proxy in proxies:
            proxy.partners = [other for other in proxies if other is not proxy]

    @property
    def alone(self) -> bool:
        """Whether each verb is one step."""
        return self.kind == "single"

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def stored_keys(self) -> set[str]:
        return {key.decode() for server in self.servers for key in server.client.keys("*")}

    def due(self) -> int:
        """Return how many scheduled jobs are due."""
        found = 0
        for server in self.servers:
            seconds, micros = server.client.time()
            for key in server.client.keys("*:scheduled"):
                found += server.client.zcount(key, "-inf", seconds * 1_000_000 + micros)
        return found


def _proxy(stack: contextlib.ExitStack, port: int) -> Proxy:
    return stack.enter_context(Proxy(("127.0.0.1", port), split=command_length))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server, contextlib.ExitStack() as stack:
        proxy = _proxy(stack, server.port)
        yield World([server], [proxy], f"redis://127.0.0.1:{proxy.port}/0", "single")


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        proxies: list[Proxy] = []

        def front(port: int) -> int:
            proxies.append(_proxy(stack, port))
            return proxies[-1].port

        with RedisCluster(tmp_path_factory.mktemp("cluster"), front=front) as cluster:
            yield World(cluster.servers, proxies, cluster.url, "cluster")


def snapshot(broker: RedisBroker) -> Snapshot:
    """Return state, body and holder of each job in each queue, where it is in exactly one state."""
    found: Snapshot = {}
    for state in State:
        items = broker.page(state, limit=1_000).items
        assert len(items) == broker.count(state), f"{state}: listing and count differ"
        for item in items:
            key = (item.envelope.id, item.envelope.queue)
            assert key not in found, f"{item.envelope.body!r} is in two states"
            found[key] = (state, item.envelope.body, item.session)
    return found


def check(now: Snapshot, before: Snapshot, after: Snapshot, *, alone: bool) -> None:
    """Each job is as before or as after, and nowhere lost."""
    for key in before.keys() | after.keys() | now.keys():
        assert now.get(key) in (before.get(key), after.get(key)), key
    kept = {id_ for id_, _ in before} & {id_ for id_, _ in after}
    assert kept <= {id_ for id_, _ in now}
    assert not alone or len(now) == len({id_ for id_, _ in now})


@contextlib.contextmanager
def staged(world: World, verb: str, *, warm: bool) -> Iterator[tuple[RedisBroker, Scene]]:
    """The same scene every time, and a broker that knows of nothing before it."""
    for server in world.servers:
        server.client.flushall()
    with contextlib.closing(RedisBroker(world.url)) as broker:
        scene = build(broker)
        if verb == "promote_due":
            broker.schedule(scene.due)
            wait_until(lambda: world.due() == len(scene.due), 5, "the jobs are due")
        if not warm:
            for server in world.servers:
                server.client.script_flush()
        if verb == "dequeue, woken":  # it finds nothing at first, and the job by the look behind
            broker.schedule([envelope("woken", "soon", delay=SOON)])
        yield broker, scene


def drained(broker: RedisBroker) -> list[str]:
    """Let the dead sessions' jobs be taken over, run all, and return what ran."""
    broker.open(LAST, ttl=TTL)
    for session in (HOLDER, HEIR, FRESH):
        while orphans := broker.recover(LAST, limit=100, dead=session):
            assert broker.release(orphans) == []
    assert broker.audit(LAST, limit=100) == []
    broker.promote(ids([item.envelope for item in broker.page(State.SCHEDULED).items]))
    ran = []
    while loans := broker.dequeue(LAST, (*QUEUES, Share("soon")), limit=100, wait=0):
        ran += [loan.envelope.id for loan in loans]
        assert broker.ack(loans) == []
    assert broker.end(LAST)
    return ran


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_crash_at_any_command_leaves_every_job_in_one_place(
    single: World, verb: str, side: str
) -> None:
    """Each job is as before the verb or as after it, a second call mends it, and all drain once."""
    enumerate_crashes(single, verb, side, warm=True)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("verb", ["enqueue", "dequeue", "ack", "requeue", "open", "recover"])
def test_a_crash_of_a_client_that_has_just_begun_does_no_harm(
    single: World, verb: str, side: str
) -> None:
    """The same while it says hello, looks at the server, and finds the script cache empty."""
    enumerate_crashes(single, verb, side, warm=False)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in LOOKS])
def test_a_crash_at_any_command_to_any_node_of_a_cluster_loses_nothing(
    clustered: World, verb: str, side: str
) -> None:
    """The same where a verb is several steps on several nodes, all of which the client leaves."""
    enumerate_crashes(clustered, verb, side, warm=True)


def enumerate_crashes(world: World, verb: str, side: str, *, warm: bool) -> None:
    """Crash at every command of *verb* to every server."""
    act = VERBS[verb]
    with staged(world, verb, warm=warm) as (direct, scene):
        before = snapshot(direct)
        act(direct, scene)
        after = snapshot(direct)
    crashes = 0
    for proxy in world.proxies:
        for k in itertools.count(1):
            with staged(world, verb, warm=warm) as (direct, scene):
                died = crash(world, proxy, act, scene, k, side, warm=warm)
                mend(world, direct, verb, scene, before, after)
            if not died:
                break
            crashes += 1
    assert crashes, "nothing was sent"


def crash(
    world: World, proxy: Proxy, act: Act, scene: Scene, k: int, side: str, *, warm: bool
) -> bool:
    """Let a client die at the *k*-th command to one server; say whether it sent so many."""
    victim = RedisBroker(world.url)
    if warm:
        victim.count(State.READY)
    cut = proxy.cut_before_request if side == "before" else proxy.cut_before_reply
    cut(k, then="refuse")
    try:
        act(victim, scene)
    except BrokerUnavailable:
        assert not proxy.armed
    died = not proxy.armed
    victim.close()
    wait_until(
        lambda: not died or all(other.refusing for other in world.proxies), 5, "it is dead to all"
    )
    world.heal()
    return died


def mend(
    world: World,
    direct: RedisBroker,
    verb: str,
    scene: Scene,
    before: Snapshot,
    after: Snapshot,
) -> None:
    """See that nothing is lost, that a second call completes it, and that everything drains."""
    now = snapshot(direct)
    check(now, before, after, alone=world.alone)
    if verb not in TAKES:
        again(direct, verb, VERBS[verb], scene)
        now = snapshot(direct)
        assert after == now
    left = sorted(id_ for (id_, _), at in now.items() if at[0] is not State.DEAD)
    assert left == sorted(drained(direct))
    kept = {
        key
        for key in world.stored_keys()
        if ":held:" in key or key.endswith((":ready", ":scheduled"))
    }
    assert not kept


def again(broker: RedisBroker, verb: str, act: Act, scene: Scene) -> None:
    """Call a verb that may have happened already."""
    if verb == "open":
        with contextlib.suppress(BrokerError):  # it exists, then
            act(broker, scene)
    else:
        act(broker, scene)
