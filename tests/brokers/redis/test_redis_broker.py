"""What is the Redis broker's own: scripts, sleep, settings of the server, faults of it."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import goose
from goose.brokers import dangers
from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.brokers.redis.checks import problems
from goose.brokers.redis.records import micros, pack, unpack, when
from goose.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EnqueueError,
    SessionLost,
)
from goose.jobs import Envelope
from tests.servers.redis import RedisServer, valkey_server

MAIL = [Share("mail")]
Wait = Callable[..., None]


def jobs(count: int, queue: str = "mail", body: bytes = b"{}") -> list[Envelope]:
    """Return envelopes with ids as clients make them."""
    return [Envelope(str(uuid.uuid4()), queue, body) for _ in range(count)]


@pytest.fixture
def broker(own_server: RedisServer) -> Iterator[RedisBroker]:
    """A broker of a server of its own, with a session open."""
    broker = RedisBroker(own_server.url, timeout=2.0)
    yield broker
    broker.close()


@pytest.fixture
def session(broker: RedisBroker) -> Session:
    """A session that lives."""
    session = Session("worker")
    broker.open(session, ttl=60.0)
    return session


def commands(server: RedisServer) -> dict[str, int]:
    """Return how often each command was called."""
    stats: Any = server.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}


# --- scripts -----------------------------------------------------------------------------


def test_forgotten_scripts_are_sent_again(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """After SCRIPT FLUSH every verb works as before, at the price of one more round trip."""
    for flushed in range(3):
        own_server.client.script_flush()
        broker.enqueue(jobs(3))
        lent = broker.dequeue(session, MAIL, limit=3, wait=0)
        own_server.client.script_flush()
        assert [] == list(broker.ack(lent)), f"after {flushed} flushes"


def test_forgotten_scripts_are_sent_again_within_a_pipeline(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """A batch for several queues goes in one trip, and none of it is done twice or not at all."""
    shares = [Share(name) for name in "abc"]
    broker.enqueue([job for name in "abc" for job in jobs(2, name)])
    lent = broker.dequeue(session, shares, limit=6, wait=0)
    own_server.client.script_flush()

    assert [] == list(broker.ack(lent))
    assert lent == sorted(broker.ack(lent), key=lent.index)
    assert [] == list(broker.queues())


def test_a_call_is_one_round_trip(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """Enqueue, dequeue of several queues and ack are one command each."""
    shares = [Share("mail"), Share("b", 0), Share("c", 0)]
    for _ in range(2):
        own_server.client.config_resetstat()
        broker.enqueue(jobs(5))
        broker.ack(broker.dequeue(session, shares, limit=5, wait=0))

    assert 3 == commands(own_server)["evalsha"]
    assert {"evalsha"} == {
        name for name in commands(own_server) if name.startswith(("eval", "script", "multi"))
    }


def test_a_call_returns_a_megabyte_at_most(broker: RedisBroker, session: Session) -> None:
    """Large jobs are lent in parts, none left behind."""
    broker.enqueue(jobs(6, body=bytes(400_000)))
    sizes = [len(broker.dequeue(session, MAIL, limit=100, wait=0)) for _ in range(3)]

    assert (6, 3) == (sum(sizes), max(sizes))


def test_a_stale_receipt_of_the_same_session_is_refused(
    broker: RedisBroker, session: Session
) -> None:
    """A session that gave a job back and got it again cannot settle it by the first receipt."""
    broker.enqueue(jobs(1))
    stale = broker.dequeue(session, MAIL, limit=1, wait=0)
    broker.release(stale)
    [good] = broker.dequeue(session, MAIL, limit=1, wait=0)

    assert stale == list(broker.ack(stale))
    assert stale == list(broker.release(stale))
    assert stale == list(broker.requeue([(stale[0], stale[0].envelope)]))
    assert stale == list(broker.bury([(stale[0], stale[0].envelope)]))
    assert [] == list(broker.ack([good]))


def test_order_survives_a_clock_that_is_set_back(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """What is enqueued later is lent later, also if the line's end is in the future."""
    first, second = jobs(2)
    broker.enqueue([first])
    [line] = own_server.client.keys("*:ready")
    own_server.client.zincrby(line, 3600e6, first.id)
    broker.enqueue([second])
    lent = broker.dequeue(session, MAIL, limit=2, wait=0)

    assert [first.id, second.id] == [delivery.envelope.id for delivery in lent]


def test_the_stored_form_keeps_everything() -> None:
    """Groups and bodies of any kind come back from the stored form, with or without an instant."""
    for group in (None, "", "tenant", "12:🪿"):
        for body in (b"", b"::", b"7:x", bytes(range(256))):
            envelope = Envelope("id", "mail", body, group=group)
            for stamp in (b"", b"1790000000000000"):
                assert envelope == unpack("id", "mail", stamp + pack(envelope))


def test_an_id_of_any_bytes_can_be_settled(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """A job that another program stored under bytes that are no text is lent and settled."""
    client = own_server.client
    client.hset("goose:{default:mail}:jobs", b"\xff\xfe", b"::body")
    client.zadd("goose:{default:mail}:ready", {b"\xff\xfe": 1.7e15})
    client.sadd("goose:{default}:queues", "mail")
    [listed] = broker.page(State.READY).items
    [lent] = broker.dequeue(session, MAIL, limit=1, wait=0)

    assert listed.envelope == lent.envelope
    assert [] == list(broker.ack([lent]))
    assert [] == list(broker.queues())


def test_a_listing_goes_on_among_jobs_of_one_instant(broker: RedisBroker) -> None:
    """Pages over jobs due at the same moment go on rightly, also when the last one shown is gone."""
    envelopes = [Envelope(f"job-{n:02}", "mail", b"", due_at=4e9) for n in range(20)]
    broker.schedule(envelopes)
    first = broker.page(State.SCHEDULED, "mail", limit=7)
    broker.delete(["job-06", "job-03", "job-08"], state=State.SCHEDULED)
    second = broker.page(State.SCHEDULED, "mail", limit=100, after=first.next)

    assert [f"job-{n:02}" for n in range(7)] == [item.envelope.id for item in first.items]
    assert ["job-07", *(f"job-{n:02}" for n in range(9, 20))] == [
        item.envelope.id for item in second.items
    ]


def test_pages_are_quick_in_a_long_queue(own_server: RedisServer, broker: RedisBroker) -> None:
    """No call of the inspector keeps the server busy for long, however many jobs there are."""
    envelopes = jobs(20_000)
    broker.enqueue(envelopes)
    own_server.client.config_set("slowlog-log-slower-than", "20000")
    own_server.client.slowlog_reset()
    after = broker.page(State.READY, limit=100).next
    assert 100 == len(broker.page(State.READY, limit=100, after=after).items)
    assert broker.find(envelopes[15_000].id)
    assert [envelopes[9].id] == broker.prioritise([envelopes[9].id])
    assert 20_000 == broker.purge(State.READY)

    assert [] == own_server.client.slowlog_get()


def test_instants_are_never_early() -> None:
    """Microseconds are rounded up."""
    assert (1, 0, 1_000_000) == (micros(0.0000001), micros(0.0), micros(1.0))
    assert (b"", b"+500000", b"=1500000", b"") == (
        when(Envelope("a", "q", b"")),
        when(Envelope("a", "q", b"", delay=0.5)),
        when(Envelope("a", "q", b"", due_at=1.5)),
        when(Envelope("a", "q", b"", delay=0.0)),
    )


def test_a_small_job_takes_little_memory(own_server: RedisServer, broker: RedisBroker) -> None:
    """A queued job with small arguments takes at most 450 bytes of the server's memory."""
    body = b'{"v":1,"id":"%s","fn":"app.mail:send","args":[7],"queue":"mail","enqueued_at":1.5}'
    broker.enqueue(jobs(1))
    count = 20_000

    def used() -> int:
        info: Any = own_server.client.info("memory")
        return int(info["used_memory"])

    before = used()
    broker.enqueue([Envelope(job.id, job.queue, body % job.id.encode()) for job in jobs(count)])

    assert (used() - before) / count <= 450


def test_namespaces_share_no_key(own_server: RedisServer) -> None:
    """Everything an application stores bears its namespace."""
    broker = RedisBroker(own_server.url, namespace="shop")
    broker.open(Session("w"), ttl=60)
    broker.enqueue(jobs(2))
    broker.ack(broker.dequeue(Session("w"), MAIL, limit=1, wait=0.01))
    keys = own_server.client.keys()

    assert keys
    assert [] == [
        key for key in keys if not key.startswith((b"goose:{shop}:", b"goose:{shop:mail}:"))
    ]


def test_nothing_stays_of_what_is_done(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """After the last job and session, only the latest receipt and remembered names are left."""
    broker.enqueue(jobs(5))
    broker.ack(broker.dequeue(session, MAIL, limit=5, wait=0))
    broker.end(session)
    broker.promote_due(limit=10)

    assert {b"goose:{default}:gone", b"goose:{default}:receipt"} == set(own_server.client.keys())


# --- sleep -------------------------------------------------------------------------------


def sleepers(url: str, count: int) -> tuple[list[RedisBroker], list[threading.Thread], list[float]]:
    """Return brokers that sleep in threads of their own, and when each got a job."""
    brokers = [RedisBroker(url, timeout=60) for _ in range(count)]
    got: list[float] = []

    def sleep(broker: RedisBroker, number: int) -> None:
        session = Session(f"sleeper-{number}")
        broker.open(session, ttl=60)
        if broker.dequeue(session, MAIL, limit=1, wait=20):
            got.append(time.perf_counter())

    threads = [
        threading.Thread(target=sleep, args=(broker, number))
        for number, broker in enumerate(brokers)
    ]
    for thread in threads:
        thread.start()
    return brokers, threads, got


def test_one_job_wakes_one_worker(own_server: RedisServer, wait_until: Wait) -> None:
    """Of many idle workers one is woken by one job, and the others send nothing."""
    client = own_server.client
    broker = RedisBroker(own_server.url)
    broker.enqueue(jobs(1, "other"))  # so that it knows the server and its script
    brokers, threads, got = sleepers(own_server.url, 12)
    wait_until(lambda: client.info("clients")["blocked_clients"] == 12)
    client.config_resetstat()
    for number in range(3):
        broker.enqueue(jobs(1))
        wait_until(lambda number=number: len(got) == number + 1)
    seen = commands(own_server)

    assert 3 + 3 == seen["evalsha"], "an enqueue and a look for each job, and no other look"
    for sleeper in brokers:
        sleeper.wake()
    for thread in threads:
        thread.join(10)
    assert 3 == len(got)


def test_an_idle_worker_starts_a_job_at_once(own_server: RedisServer, wait_until: Wait) -> None:
    """From the enqueue to the loan it takes a few milliseconds, in the best of some tries one."""
    took: list[float] = []
    client = own_server.client
    broker = RedisBroker(own_server.url)
    broker.enqueue([])
    session = Session("idle")
    broker.open(session, ttl=60)
    for _ in range(15):
        got: list[float] = []

        def sleep(got: list[float] = got) -> None:
            broker.ack(broker.dequeue(session, MAIL, limit=1, wait=10))
            got.append(time.perf_counter())

        thread = threading.Thread(target=sleep)
        thread.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        began = time.perf_counter()
        broker.enqueue(jobs(1))
        thread.join(10)
        took.append(got[0] - began)

    assert min(took) < 0.003
    assert sorted(took)[7] < 0.02


def test_an_idle_worker_costs_two_commands_a_wait(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """A dequeue that finds nothing is one look and one sleep."""
    broker.dequeue(session, MAIL, limit=1, wait=0.01)
    own_server.client.config_resetstat()
    for _ in range(3):
        broker.dequeue(session, MAIL, limit=1, wait=0.1)

    seen = commands(own_server)
    assert (3, 3) == (seen["evalsha"], seen["blpop"])


def test_a_due_job_is_lent_in_time(broker: RedisBroker, session: Session) -> None:
    """A sleeping dequeue lends a scheduled job at its instant, told by upkeep or by itself."""
    for upkeep, allowed in ((True, 0.5), (False, 3.0)):
        broker.schedule([Envelope("due", "mail", b"", delay=0.3)])
        due = time.monotonic() + 0.3
        if upkeep:
            timer = threading.Timer(0.301, broker.promote_due, kwargs={"limit": 10})
            timer.start()
        lent = broker.dequeue(session, MAIL, limit=1, wait=5)
        late = time.monotonic() - due
        assert ["due"] == [delivery.envelope.id for delivery in lent]
        assert [] == list(broker.ack(lent))
        assert -0.005 <= late <= allowed


def test_wake_ends_a_sleep_while_the_server_hangs(
    own_server: RedisServer, broker: RedisBroker, session: Session, wait_until: Wait
) -> None:
    """`wake` ends a sleep soon, and whether something was lent is then said to be unknown."""
    client = own_server.new_client()
    ended: list[float] = []

    def sleep() -> None:
        try:
            broker.dequeue(session, MAIL, limit=1, wait=30)
        except BrokerUnavailable:
            ended.append(time.monotonic())

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
    own_server.pause()
    before = time.monotonic()
    broker.wake()
    thread.join(10)
    own_server.resume()

    assert ended[0] - before < 2.0


def test_a_wake_beside_a_job_strands_nothing(
    own_server: RedisServer, broker: RedisBroker, session: Session, wait_until: Wait
) -> None:
    """A sleep that is ended in the moment a job arrives tells of all it was lent."""
    client = own_server.new_client()
    lent: list[Delivery] = []

    def sleep() -> None:
        lent.extend(broker.dequeue(session, MAIL, limit=10, wait=30))

    for turn in range(60):
        thread = threading.Thread(target=sleep)
        thread.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        sender = threading.Thread(target=broker.enqueue, args=(jobs(1),))
        for act in (sender.start, broker.wake) if turn % 2 else (broker.wake, sender.start):
            act()
        for each in (thread, sender):
            each.join(10)
        assert len(lent) == broker.count(State.RUNNING)
        # What came after the wake; uses up a wake that came after the job.
        lent += broker.dequeue(session, MAIL, limit=10, wait=0)
    left_over = set(own_server.client.keys("*:wake:*"))

    assert (60, 60) == (len(lent), len({delivery.receipt for delivery in lent}))
    assert all(own_server.client.ttl(key) > 0 for key in left_over)


def test_the_look_behind_a_sleep_survives_a_lost_script(
    own_server: RedisServer, broker: RedisBroker, session: Session, wait_until: Wait
) -> None:
    """A worker that is woken after SCRIPT FLUSH gets its job all the same."""
    client = own_server.new_client()
    lent: list[Delivery] = []
    sleep = threading.Thread(
        target=lambda: lent.extend(broker.dequeue(session, MAIL, limit=1, wait=30))
    )
    sleep.start()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
    client.script_flush()
    broker.enqueue(jobs(1))
    sleep.join(10)

    assert 1 == len(lent)


def test_a_sleep_goes_on_only_where_it_was(broker: RedisBroker, session: Session) -> None:
    """A dequeue of other queues looks at once, however soon after a sleep elsewhere."""
    assert [] == list(broker.dequeue(session, MAIL, limit=1, wait=0.01))
    broker.enqueue(jobs(1, "other"))
    before = time.monotonic()
    lent = broker.dequeue(session, [Share("other")], limit=1, wait=30)

    assert 1 == len(lent)
    assert time.monotonic() - before < 5


def test_a_new_session_does_not_sleep_on_for_the_old_one(
    broker: RedisBroker, session: Session
) -> None:
    """What another session does in the same thread begins with a look of its own."""
    assert [] == list(broker.dequeue(session, MAIL, limit=1, wait=0.01))
    with pytest.raises(SessionLost):
        broker.dequeue(Session("nobody"), MAIL, limit=1, wait=30)


def test_a_silent_server_is_noticed(own_server: RedisServer, wait_until: Wait) -> None:
    """A sleep on a connection that leads nowhere ends with an error within the timeout."""
    broker = RedisBroker(own_server.url, timeout=2.0)
    session = Session("w")
    broker.open(session, ttl=60)
    client = own_server.new_client()
    raised: list[BaseException] = []

    def sleep() -> None:
        try:
            broker.dequeue(session, MAIL, limit=1, wait=20)
        except BrokerError as error:
            raised.append(error)

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
    own_server.pause()
    before = time.monotonic()
    thread.join(5)
    took = time.monotonic() - before
    own_server.resume()

    assert isinstance(raised[0], BrokerUnavailable)
    assert took < 2.5


# --- faults of the server ----------------------------------------------------------------


def test_it_comes_back_with_the_server(own_server: RedisServer, broker: RedisBroker) -> None:
    """While the server is down calls fail quickly; as soon as it is up they work again."""
    broker.enqueue(jobs(1))
    own_server.kill()
    before = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=str(own_server.port)):
        broker.enqueue(jobs(1))
    assert time.monotonic() - before < 2
    own_server.start()
    broker.enqueue(jobs(1))

    assert 1 == broker.count(State.READY)  # it keeps nothing on disk


@pytest.mark.parametrize("driver", ["as installed", "before redis-py 8"])
def test_a_connection_that_the_server_closed_is_not_used(
    own_server: RedisServer,
    broker: RedisBroker,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
) -> None:
    """Calls that must not be repeated do not fail for a connection that was closed when idle."""
    for class_ in redis.Connection.__mro__:
        if driver != "as installed" and "is_connected" in vars(class_):
            monkeypatch.delattr(class_, "is_connected")
    broker.enqueue(jobs(4))
    lent = broker.dequeue(session, MAIL, limit=2, wait=0)
    for call in (
        lambda: broker.dequeue(session, MAIL, limit=2, wait=0),
        lambda: broker.ack(lent),
        lambda: broker.recover(session, limit=1),
    ):
        own_server.client.client_kill_filter(_type="normal", skipme=True)
        call()


def test_a_full_server_refuses_and_is_drained(
    own_server: RedisServer, broker: RedisBroker, session: Session
) -> None:
    """With no memory left, an enqueue is refused and stores nothing; workers go on all the same."""
    broker.enqueue(jobs(3))
    own_server.client.config_set("maxmemory", "1")
    with pytest.raises(BrokerError, match="maxmemory") as caught:
        broker.enqueue(jobs(1))
    assert not isinstance(caught.value, BrokerUnavailable)
    broker.heartbeat(session, ttl=60)
    one, two, three = broker.dequeue(session, MAIL, limit=3, wait=0)
    broker.ack([one])
    broker.requeue([(two, two.envelope)])
    broker.bury([(three, three.envelope)])
    own_server.client.config_set("maxmemory", "0")

    assert (1, 1) == (broker.count(State.READY), broker.count(State.DEAD))


def test_a_replica_is_not_written_to(own_server: RedisServer, broker: RedisBroker) -> None:
    """READONLY is unavailable, with advice; when the server is master again, it works again."""
    broker.enqueue(jobs(1))
    own_server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(BrokerUnavailable, match="replica"):
        broker.enqueue(jobs(1))
    own_server.client.execute_command("REPLICAOF", "NO", "ONE")
    broker.enqueue(jobs(1))

    assert 2 == broker.count(State.READY)


def test_a_busy_server_is_waited_for(own_server: RedisServer, broker: RedisBroker) -> None:
    """While another's script runs for too long, a call is tried again until that one is over."""
    own_server.client.config_set("busy-reply-threshold", "10")
    broker.enqueue(jobs(1))
    script = "local t=redis.call('TIME') local e=t[1]*1e6+t[2]+3e5 repeat t=redis.call('TIME') until t[1]*1e6+t[2]>e"
    other = threading.Thread(target=own_server.new_client().eval, args=(script, 0))
    other.start()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and other.is_alive():
        broker.enqueue(jobs(1))
    other.join()

    assert broker.count(State.READY) >= 2


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    """A missing or wrong password is refused, not tried for ever, and said so."""
    config = {"save": "", "appendonly": "no", "requirepass": "secret"}
    with RedisServer(tmp_path / "locked", config=config) as server:
        for user in ("", ":wrong@", "nobody:wrong@"):
            broker = RedisBroker(server.url.replace("//", f"//{user}"))
            with pytest.raises(BrokerError, match="password") as caught:
                broker.enqueue(jobs(1))
            assert not isinstance(caught.value, BrokerUnavailable)
        RedisBroker(server.url.replace("//", "//:secret@")).enqueue(jobs(1))


def test_a_user_needs_few_rights(own_server: RedisServer) -> None:
    """The rights that an error advises are enough for all verbs."""
    rights = "~goose:* +@read +@write +@scripting +@connection +time +info"
    own_server.client.execute_command("ACL", "SETUSER", "ada", "on", ">pw", *rights.split())
    broker = RedisBroker(own_server.url.replace("//", "//ada:pw@"))
    broker.open(Session("w"), ttl=60)
    broker.enqueue(jobs(2))
    broker.ack(broker.dequeue(Session("w"), MAIL, limit=1, wait=1))
    broker.dequeue(Session("w"), [Share("none")], limit=1, wait=0.05)
    broker.recover(Session("w"), limit=1)

    assert 1 == broker.count(State.READY)


def test_calls_wait_for_a_connection(own_server: RedisServer) -> None:
    """More threads than connections take turns; whoever waits too long is told so."""
    broker = RedisBroker(own_server.url, pool=2, timeout=0.5)
    threads = [threading.Thread(target=broker.enqueue, args=(jobs(1),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 20 == broker.count(State.READY)
    held = [broker._link._server.take(look=False) for _ in range(2)]
    with pytest.raises(BrokerUnavailable, match="pool="):
        broker.enqueue(jobs(1))
    for connection in held:
        broker._link._server.give(connection)


def test_it_may_be_used_on_both_sides_of_a_fork(
    own_server: RedisServer, broker: RedisBroker, session: Session, wait_until: Wait
) -> None:
    """A forked child gets connections of its own, and the parent's sleep goes on."""
    broker.enqueue(jobs(1, "other"))
    lent: list[Any] = []

    def sleep() -> None:
        lent.extend(broker.dequeue(session, MAIL, limit=5, wait=10))

    thread = threading.Thread(target=sleep)
    thread.start()
    wait_until(lambda: own_server.client.info("clients")["blocked_clients"] == 1)
    child = os.fork()
    if child == 0:
        try:
            broker.enqueue(jobs(1, "other"))
            broker.wake()
            os._exit(0 if 2 == broker.count(State.READY) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert (0, []) == (os.waitstatus_to_exitcode(status), lent)
    assert thread.is_alive(), "the child woke its parent's sleeper"
    broker.enqueue(jobs(1))
    thread.join(10)

    assert 1 == len(lent)


# --- settings of the server --------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, None),
        ({"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": "1"}, None),
        ({"aof_enabled": "0", "save": "3600 1"}, None),
        ({"aof_enabled": "0", "save": ""}, "nothing on disk"),
        ({"redis_version": "6.0.16"}, "6.2 or later"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "100"}, "are thrown away"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, "as soon as"),
    ],
)
def test_settings_that_lose_jobs_are_known(info: dict[str, str], said: str | None) -> None:
    """An evicting policy, no persistence and an old server are problems; silence is not."""
    found = problems(info)

    assert (0 if said is None else 1) == len(found)
    assert (said or "") in "".join(found)


def test_a_server_that_may_lose_jobs_is_warned_of_once(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first use warns loudly, also if several brokers of the process use that server."""
    monkeypatch.setattr(dangers, "_told", set())
    own_server.client.config_set("maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            RedisBroker(own_server.url).count(State.READY)

    assert 2 == len(caplog.records), "one for the policy, one for the disk"
    assert all("JOBS MAY BE LOST" in record.message for record in caplog.records)


def test_a_strict_broker_refuses_such_a_server(own_server: RedisServer) -> None:
    """With strict=true nothing is stored on a server that may lose it."""
    broker = RedisBroker(own_server.url, strict=True)
    with pytest.raises(ConfigError, match="appendonly"):
        broker.enqueue(jobs(1))

    assert [] == own_server.client.keys()


# --- replicas ----------------------------------------------------------------------------


@pytest.fixture(params=["redis", "valkey"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, wait_until: Wait
) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and the replica that follows it."""
    program = valkey_server() if request.param == "valkey" else None
    with (
        RedisServer(tmp_path / "master", program=program) as master,
        RedisServer(tmp_path / "replica", program=program) as replica,
    ):
        replica.client.execute_command("REPLICAOF", "127.0.0.1", master.port)
        # At first it may confirm what it was given whole, and nothing newer for a second.
        wait_until(
            lambda: master.client.incr("there") and master.client.wait(1, 100) == 1, seconds=20
        )
        yield master, replica


def test_replicas_confirm(pair: tuple[RedisServer, RedisServer]) -> None:
    """With wait=1 a job is on the replica when the enqueue returns; without enough of them it fails.

    The error says that it is not known what became of the jobs; sending the same ones again
    stores each once, and says the truth about the replicas again.
    """
    master, replica = pair
    broker = RedisBroker(master.url, wait=1, wait_timeout=0.3)
    client = goose.Client(broker)
    client.enqueue(os.path.basename, "a")
    assert 1 == replica.client.hlen("goose:{default:default}:jobs")
    replica.pause()
    with pytest.raises(EnqueueError) as caught:
        client.enqueue(os.path.basename, "a")
    assert ["unknown"] == list(caught.value.jobs.values())
    with pytest.raises(EnqueueError):
        client.submit(caught.value.jobs)
    replica.resume()
    client.submit(caught.value.jobs)

    assert 2 == broker.count(State.READY)
