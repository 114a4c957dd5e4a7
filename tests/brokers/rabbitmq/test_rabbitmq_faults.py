"""What goes wrong with a server, one fault at a time: nothing is lost, nobody waits for ever."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pika import spec
from pika.frame import Method

import goose
from goose._interrupts import exposed
from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.brokers.rabbitmq import RabbitMQBroker, parts
from goose.brokers.rabbitmq.confirms import Outlet, Parcel
from goose.brokers.rabbitmq.faults import Refused
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from goose.settings import Settings
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect
from tests.servers.rabbitmq import RabbitServer

pytestmark = pytest.mark.timeout(240)

SESSION = Session("worker")
MAIL = [Share("mail")]
RECOVERY = 5.0
"""Seconds from a server that accepts connections to jobs that come again."""

SYNCED = 4.0
"""Seconds after which RabbitMQ 3.10 has written to disk that a queue exists; it buffers that for 3."""


def through(proxy: Proxy) -> str:
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}"


def envelopes(*names: str) -> list[Envelope]:
    return [Envelope(name, "mail", b"{}") for name in names]


def take(broker: RabbitMQBroker, count: int = 1, within: float = 20.0) -> list[Delivery]:
    """Return *count* jobs, whatever the broker says meanwhile."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + within
    while len(taken) < count:
        assert time.monotonic() < deadline, f"{len(taken)} of {count} jobs in {within} s"
        with contextlib.suppress(BrokerUnavailable):
            taken += broker.dequeue(SESSION, MAIL, limit=count - len(taken), wait=0.2)
    return taken


def seen_dead(broker: RabbitMQBroker) -> list[str]:
    """Return the ids of all dead jobs, once the node has a leader for their queue."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(BrokerUnavailable):
            return sorted(item.envelope.id for item in broker.page(State.DEAD).items)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ids(deliveries: list[Delivery]) -> list[str]:
    return sorted(delivery.envelope.id for delivery in deliveries)


def test_a_killed_node_keeps_what_it_confirmed(rabbit: RabbitServer, connect: Connect) -> None:
    """What was confirmed before a kill is there after a restart, and comes within seconds."""
    client, worker = connect(), connect()
    stored: list[str] = []
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            name = f"job-{len(stored):05}"
            with contextlib.suppress(BrokerError):
                client.enqueue(envelopes(name))
                stored.append(name)

    thread = threading.Thread(target=produce)
    thread.start()
    held = take(worker, 1)
    declared = time.monotonic()
    while len(stored) < 50 or time.monotonic() - declared < SYNCED:
        time.sleep(0.01)
    rabbit.kill()
    rabbit.start()
    back = time.monotonic()
    first = take(worker, 1)
    assert time.monotonic() - back < RECOVERY
    stop.set()
    thread.join()
    # Its loan ended with the node, but it is done: this process knows it when it comes again.
    worker.ack([*held, *first])
    rest = {*ids(held), *ids(first)}
    while lent := worker.dequeue(SESSION, MAIL, limit=100, wait=1.0):
        rest |= {delivery.envelope.id for delivery in lent}
        worker.ack(lent)
    assert set(stored) <= rest


def test_dead_jobs_that_are_only_on_disk_are_seen(rabbit: RabbitServer, connect: Connect) -> None:
    """The first look after a restart of the node sees every dead job, though it has to read them."""
    broker = connect()
    broker.enqueue(envelopes(*"abcdef"))
    broker.bury([(held, held.envelope) for held in take(broker, 6)])
    broker.close()
    rabbit.stop()
    rabbit.start()

    assert [*"abcdef"] == seen_dead(connect(rabbit.url))


def test_those_who_look_at_once_all_see_all(connect: Connect) -> None:
    """Several people look at the dead jobs at the same time: each sees every one of them."""
    broker = connect()
    broker.enqueue(envelopes(*"abcdef"))
    broker.bury([(held, held.envelope) for held in take(broker, 6)])
    brokers = [connect() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        looks = list(pool.map(seen_dead, brokers * 5))

    assert [[*"abcdef"]] * 20 == looks


def test_a_node_that_is_down_is_said_to_be(rabbit: RabbitServer, connect: Connect) -> None:
    """An enqueue and a dequeue raise within their bounds while the node is down, then work."""
    broker = connect(connect_timeout=1.0, timeout=3.0)
    rabbit.kill()
    before = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        broker.enqueue(envelopes("one"))
    assert time.monotonic() - before < 4.0
    with pytest.raises(BrokerUnavailable):
        broker.dequeue(SESSION, MAIL, limit=1, wait=0.1)
    rabbit.start()
    broker.enqueue(envelopes("two"))
    assert "two" in ids(take(broker))


def test_a_job_that_still_runs_is_not_lent_again_here(proxy: Proxy, connect: Connect) -> None:
    """After a cut, a job comes back to the process that runs it, which settles it after all."""
    worker, other = connect(through(proxy)), connect()
    worker.enqueue(envelopes("one"))
    held = take(worker)
    loan = worker._parts.intake.loans[held[0].receipt]  # type: ignore[index]
    before = loan.generation
    proxy.reset()
    deadline = time.monotonic() + 20
    while loan.generation == before:  # until the message is here again
        with contextlib.suppress(BrokerUnavailable):
            assert [] == worker.dequeue(SESSION, MAIL, limit=1, wait=0.1)
        assert time.monotonic() < deadline
    assert [] == list(worker.ack(held))
    worker.close()
    assert [] == other.dequeue(SESSION, MAIL, limit=1, wait=0.5)


def test_a_cut_connection_voids_what_another_took(proxy: Proxy, connect: Connect) -> None:
    """A settle of a job that was lent elsewhere since changes nothing, and is told."""
    worker, other = connect(through(proxy)), connect()
    worker.enqueue(envelopes("one"))
    stale = take(worker)
    proxy.refuse()
    proxy.reset()
    [good] = take(other)
    proxy.heal()
    for _ in range(3):
        with contextlib.suppress(BrokerUnavailable):
            worker.dequeue(SESSION, MAIL, limit=1, wait=0.2)
    for settle in (worker.ack, worker.release):
        assert stale == list(settle(stale))
    assert [] == list(other.ack([good]))


def test_a_silent_network_is_noticed(proxy: Proxy, connect: Connect) -> None:
    """On a connection where nothing arrives, an enqueue raises in time, and jobs soon come again."""
    worker = connect(through(proxy), silence=1.0, timeout=2.0, connect_timeout=1.0, heartbeat=1)
    worker.enqueue(envelopes("before"))
    worker.ack(take(worker))
    proxy.strand()
    before = time.monotonic()
    # The server pushes the first of them to a process that cannot hear, until it notices.
    connect().enqueue(envelopes("first", "second"))
    assert {"first", "second"} == set(ids(take(worker, 2)))
    assert time.monotonic() - before < RECOVERY
    proxy.blackhole()
    before = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        worker.enqueue(envelopes("unknown"))
    assert time.monotonic() - before < 3.0


def test_a_deleted_queue_raises_and_is_made_again(rabbit: RabbitServer, connect: Connect) -> None:
    """No queue takes a job: the enqueue raises and is told of; the next one declares it anew."""
    returned: list[str] = []
    client = connect(on_return=lambda key, job: returned.append(job))
    worker = connect()
    client.enqueue(envelopes("one"))
    worker.ack(take(worker))
    name = client._parts.names.ready("mail")
    admin = connect()
    admin._parts.topology._ask("queue_delete", queue=name)
    # The worker begins again at once, and so may be quicker than this client.
    try:
        client.enqueue(envelopes("two"))
    except BrokerError:
        assert ["two"] == returned
    deadline = time.monotonic() + 20
    seen: list[str] = []
    while "three" not in seen:
        assert time.monotonic() < deadline
        # What is stored while a queue is being deleted goes with it.
        with contextlib.suppress(BrokerError):
            client.enqueue(envelopes("three"))
        seen += ids(list(worker.dequeue(SESSION, MAIL, limit=9, wait=1.0)))


def test_a_queue_that_nobody_makes_again_is_missed(connect: Connect) -> None:
    """Without a worker, the enqueue into a deleted queue raises."""
    client = connect()
    client.enqueue(envelopes("one"))
    connect()._parts.topology._ask("queue_delete", queue=client._parts.names.ready("mail"))
    with pytest.raises(BrokerError, match="312"):
        client.enqueue(envelopes("two"))
    client.enqueue(envelopes("three"))
    assert ["three"] == ids(take(client))


def test_a_server_short_of_memory_keeps_nobody(rabbit: RabbitServer, connect: Connect) -> None:
    """Under an alarm enqueues raise in time, workers go on, and afterwards all is as before."""
    client, worker = connect(timeout=1.0), connect(timeout=5.0)
    client.enqueue(envelopes(*(f"job-{number}" for number in range(6))))
    worker.ack(take(worker, 2))
    rabbit.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        deadline = time.monotonic() + 20
        while True:
            before = time.monotonic()
            try:
                client.enqueue(envelopes("more"))
            except BrokerUnavailable:
                break
            assert time.monotonic() < deadline
        assert time.monotonic() - before < 2.0
        worker.ack(take(worker, 2))
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.4")
    client = connect(timeout=20.0)
    client.enqueue(envelopes("last"))
    seen: set[str] = set()
    while "last" not in seen or len(seen) < 3:
        seen |= set(ids(take(worker)))


def test_a_job_over_the_consumer_timeout_is_kept(
    rabbit: RabbitServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The server takes back what runs for too long; that is told, and the job still settles."""
    rabbit.eval("application:set_env(rabbit, consumer_timeout, 1000).")
    rabbit.eval("application:set_env(rabbit, channel_tick_interval, 500).")
    try:
        worker = connect()
        worker.enqueue(envelopes("long"))
        held = take(worker)
        deadline = time.monotonic() + 20
        while "consumer_timeout" not in caplog.text:
            assert [] == worker.dequeue(SESSION, MAIL, limit=1, wait=0.1)
            assert time.monotonic() < deadline
    finally:
        rabbit.eval("application:set_env(rabbit, consumer_timeout, 1800000).")
        rabbit.eval("application:set_env(rabbit, channel_tick_interval, 60000).")
    loan = worker._parts.intake.loans[held[0].receipt]  # type: ignore[index]
    while loan.generation != loan.lane.generation:  # until the message is here again
        worker.dequeue(SESSION, MAIL, limit=1, wait=0.1)
        assert time.monotonic() < deadline
    assert [] == list(worker.ack(held))


def test_a_channel_that_refused_is_replaced(rabbit: RabbitServer, connect: Connect) -> None:
    """One that met a queue while it had no leader would refuse for ever, though others do not."""
    broker = connect()
    broker.enqueue(envelopes("before"))
    outlet = rested(broker)._outlets[0]
    channel = outlet._channel
    refusal = Method(channel.channel_number, spec.Basic.Nack(delivery_tag=0))
    rested(broker).wire.call(lambda: outlet._answered(refusal))
    deadline = time.monotonic() + 20
    while outlet._channel in (channel, None):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    broker.enqueue(envelopes("after"))

    assert ["after", "before"] == ids(take(broker, 2))


def test_a_full_queue_refuses(rabbit: RabbitServer, connect: Connect) -> None:
    """A negative confirm is a refusal; the channel is as good as before."""
    client = connect()
    client.enqueue(envelopes("one"))
    rabbit.control(
        "set_policy", "full", "^goose/.*/q/mail$", '{"max-length": 1}', "--apply-to", "queues"
    )
    try:
        with pytest.raises(BrokerError, match="did not take"):
            for number in range(50):
                client.enqueue(envelopes(f"more-{number}"))
    finally:
        rabbit.control("clear_policy", "full")
    client.enqueue([Envelope("elsewhere", "other", b"{}")])
    assert ["elsewhere"] == ids(list(client.dequeue(SESSION, [Share("other")], limit=1, wait=5)))


def test_a_queue_without_a_leader_yet_is_asked_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first, and finds that the queue of names takes nothing yet, does not see that."""
    client = connect()
    publisher = client._parts.publisher
    send, refusals = publisher.send, [Refused("it has no leader")] * 2

    def refuse(parcels: Sequence[Parcel], deadline: float | None = None) -> None:
        if refusals:
            raise refusals.pop()
        send(parcels, deadline)

    monkeypatch.setattr(publisher, "send", refuse)
    client.enqueue(envelopes("one"))

    assert [] == refusals
    assert ["one"] == ids(take(client))


def test_other_properties_are_a_clear_error(connect: Connect) -> None:
    """Two processes that disagree about a queue are told what they disagree about."""
    connect().enqueue(envelopes("one"))
    other = connect(queue_type="classic")
    with pytest.raises(BrokerError, match="give all processes the same queue_type"):
        other.enqueue(envelopes("two"))
    with pytest.raises(BrokerError, match="give all processes the same queue_type"):
        other.dequeue(SESSION, MAIL, limit=1, wait=5)


def test_what_the_server_gives_up_is_stored_afresh(connect: Connect) -> None:
    """A job that was lent more often than the server likes is parked, and comes again."""
    worker = connect(delivery_limit=2)
    worker.enqueue(envelopes("often"))
    for _ in range(5):
        [held] = take(worker)
        assert "often" == held.envelope.id
        worker.release([held])
    assert ["often"] == ids(take(worker))


def test_verdicts_reach_whoever_is_lent_the_job(connect: Connect) -> None:
    """What a witness says comes with the job's next loan, once, and not with other jobs."""
    holder, witness, other = connect(), connect(), connect(quarantine=5.0)
    holder.enqueue(envelopes("poison", "neighbour"))
    take(holder, 2)
    other.dequeue(SESSION, MAIL, limit=1, wait=0)
    holder.close()
    witness.testify({"poison": "alone"})
    lent = {delivery.envelope.id: delivery for delivery in take(other, 1)}
    assert "alone" == lent["poison"].verdict
    [(delivery, envelope)] = [(d, d.envelope) for d in lent.values()]
    other.requeue([(delivery, envelope)])
    lent |= {delivery.envelope.id: delivery for delivery in take(other, 2)}
    assert {"poison": None, "neighbour": None} == {
        name: delivery.verdict for name, delivery in lent.items()
    }


def test_a_fork_has_connections_of_its_own(connect: Connect) -> None:
    """A child of a process that used a broker uses it too, and the parent goes on."""
    broker = connect()
    broker.enqueue(envelopes("parent"))
    pid = os.fork()
    if not pid:
        code = 1
        try:
            broker.enqueue(envelopes("child"))
            code = 0
        finally:
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    broker.enqueue(envelopes("parent again"))
    assert ["child", "parent", "parent again"] == ids(take(broker, 3))


def test_threads_share_confirms(connect: Connect) -> None:
    """Many threads that enqueue at once each hear of their own jobs, and all are stored."""
    broker = connect()
    broker.enqueue(envelopes("first"))

    def produce(name: str) -> None:
        for number in range(50):
            broker.enqueue(envelopes(f"{name}-{number}"))

    threads = [threading.Thread(target=produce, args=(str(n),)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 801 == broker.count(State.READY, "mail")


def test_several_channels_carry_what_one_does(connect: Connect) -> None:
    """Over several channels every job is stored, and those of one call keep their order."""
    broker = connect(channels=4)
    broker.enqueue(envelopes("first"))
    threads = [
        threading.Thread(
            target=broker.enqueue, args=(envelopes(*(f"{n}-{m:02}" for m in range(50))),)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [delivery.envelope.id for delivery in take(broker, 401)]

    assert 401 == len(set(taken))
    for n in range(8):
        assert [f"{n}-{m:02}" for m in range(50)] == [name for name in taken if name[:2] == f"{n}-"]


def _from_a_lost_socket() -> None:
    """Raise what the driver does when it finds that a socket is gone."""
    try:
        raise OSError(107, "Transport endpoint is not connected")
    except OSError as error:
        raise ValueError(f"Expected connected socket: {error}") from None


def _from_a_defect() -> None:
    raise ValueError("nobody expected this")


@pytest.mark.parametrize(("fails", "traced"), [(_from_a_lost_socket, 0), (_from_a_defect, 1)])
def test_what_fails_on_the_wire_costs_its_connection_only(
    connect: Connect, caplog: pytest.LogCaptureFixture, fails: Callable[[], None], traced: int
) -> None:
    """An error on the connection's own thread has it replaced; only a defect is told with its trace."""
    broker = connect()
    broker.enqueue(envelopes("before"))
    wire = broker._parts.publisher.wire
    wire.call(lambda: wire.later(0.0, fails))
    deadline = time.monotonic() + 20
    while "it is replaced" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    broker.enqueue(envelopes("after"))

    assert ["after", "before"] == ids(take(broker, 2))
    assert traced == sum(record.exc_info is not None for record in caplog.records)


def test_a_caller_writes_by_itself_while_the_wire_rests(connect: Connect) -> None:
    """What has to be done is done by the caller's thread, unless the wire's is at something."""
    broker = connect()
    broker.enqueue(envelopes("first"))
    wire = broker._parts.publisher.wire
    ran: list[int] = []

    def when(count: int) -> int:
        deadline = time.monotonic() + 20
        while len(ran) < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return ran[-1]

    deadline = time.monotonic() + 20
    while threading.get_ident() not in ran:
        assert time.monotonic() < deadline  # the wire may still have been at the confirm
        wire.do(lambda: ran.append(threading.get_ident()))
        when(1)
    tried, busy = len(ran), threading.Event()
    wire.call(lambda: busy.wait(20))
    wire.do(lambda: ran.append(threading.get_ident()))
    assert tried == len(ran)
    busy.set()

    assert threading.get_ident() != when(tried + 1)


def rested(broker: RabbitMQBroker) -> Any:
    """Return what publishes, once its thread has nothing to do."""
    publisher = broker._parts.publisher
    deadline = time.monotonic() + 20
    while publisher.wire._driving.locked() or publisher.wire._called:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return publisher


def test_a_caller_interrupted_as_it_writes_costs_the_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No confirm is taken for another job's, as a message was counted and not sent; that is given up."""
    lost: list[BaseException] = []
    broker = connect(on_lost=lost.append)
    broker.enqueue(envelopes("first"))
    publisher = rested(broker)
    write = publisher._write

    def interrupt(_: list[bytes]) -> None:
        monkeypatch.setattr(publisher, "_write", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(publisher, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        broker.enqueue(envelopes("interrupted"))
    broker.enqueue(envelopes("after"))

    assert 1 == len(lost)
    assert ["after", "first"] == ids(take(broker, 2))
    assert 0 == broker.count(State.READY, "mail")


def test_a_caller_interrupted_while_it_waits_costs_nothing(connect: Connect) -> None:
    """Whoever is stopped between its write and the confirm leaves the connection to the others."""
    lost: list[BaseException] = []
    broker = connect(on_lost=lost.append)
    broker.enqueue(envelopes("first"))
    publisher = rested(broker)
    pump = publisher._pump

    def interrupt() -> None:
        publisher._pump = pump
        pump()
        raise KeyboardInterrupt

    publisher._pump = interrupt
    with pytest.raises(KeyboardInterrupt):
        broker.enqueue(envelopes("interrupted"))
    broker.enqueue(envelopes("after"))

    assert [] == lost
    assert ["after", "first", "interrupted"] == ids(take(broker, 3))


def test_threads_that_timeouts_are_raised_in_do_not_write_by_themselves(connect: Connect) -> None:
    """A job that is stopped while it enqueues stops nobody else's write."""
    broker = connect()
    broker.enqueue(envelopes("first"))
    ran: list[int] = []

    def job() -> None:
        publisher = rested(broker)
        done = threading.Event()
        publisher.wire.do(lambda: (ran.append(threading.get_ident()), done.set()))
        assert done.wait(20)

    worker = goose.Worker(MemoryBroker(), allow=["goose"])
    with worker:
        slot = next(t for t in threading.enumerate() if t.name.startswith("goose-slot"))
        assert slot.ident in exposed
    exposed.add(threading.get_ident())
    try:
        job()
    finally:
        exposed.discard(threading.get_ident())

    assert ran
    assert threading.get_ident() not in ran


def test_who_is_called_amid_a_write_cannot_enqueue(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that enqueues there is told at once that it cannot, and holds up nobody."""
    broker = connect()
    broker.enqueue(envelopes("first"))
    publisher = rested(broker)
    write = publisher._write
    told: list[BrokerUnavailable] = []

    def handle(frames: list[bytes]) -> None:
        monkeypatch.setattr(publisher, "_write", write)
        with pytest.raises(BrokerUnavailable, match="signal handler") as caught:
            broker.enqueue(envelopes("from the handler"))
        told.append(caught.value)
        write(frames)

    monkeypatch.setattr(publisher, "_write", handle)
    broker.enqueue(envelopes("second"))

    assert [True] == [error.unsent for error in told]
    assert ["first", "second"] == ids(take(broker, 2))


def test_a_call_that_nobody_was_told_of_is_made_all_the_same(connect: Connect) -> None:
    """A thread that is stopped between its call and the word of it does not make the wire deaf."""
    broker = connect(silence=1)
    broker.enqueue(envelopes("first"))
    wire = rested(broker).wire
    wire._called = True  # and then it was stopped
    broker.enqueue(envelopes("second"))

    assert ["first", "second"] == ids(take(broker, 2))


def test_the_lock_is_held_in_all_that_the_wires_thread_does(connect: Connect) -> None:
    """Callers are kept out while it hears a confirm, and while it does what it was called for."""
    broker = connect()
    broker.enqueue(envelopes("first"))
    publisher = rested(broker)
    wire, held, settle = publisher.wire, [], Outlet._settle

    def look(*arguments: Any) -> None:
        held.append(wire._driving.locked())
        settle(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outlet, "_settle", look)
        broker.enqueue(envelopes("second"))
    done = threading.Event()
    wire.call(lambda: (held.append(wire._driving.locked()), done.set()))
    assert done.wait(20)

    assert [True, True] == held


def test_a_lost_connection_is_told(proxy: Proxy, connect: Connect) -> None:
    """Whoever asked to be told of lost connections is, with the error."""
    lost: list[BaseException] = []
    broker = connect(through(proxy), on_lost=lost.append)
    broker.enqueue(envelopes("one"))
    proxy.reset()
    broker.enqueue(envelopes("two"))

    assert lost
    assert isinstance(lost[0], BaseException)


def test_a_word_waits_for_a_connection(
    proxy: Proxy, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a witness says while there is no channel is heard as soon as there is one."""
    monkeypatch.setattr(parts, "REPEAT", 60.0)
    holder, other = connect(), connect(quarantine=20.0)
    witness = connect(through(proxy), timeout=10.0, connect_timeout=10.0)
    witness.testify({})
    holder.enqueue(envelopes("poison"))
    take(holder)
    other.dequeue(SESSION, MAIL, limit=1, wait=0)
    proxy.refuse()
    holder.close()
    witness._parts.testify({"poison": "alone"})
    proxy.heal()
    [delivery] = take(other, 1)

    assert "alone" == delivery.verdict


def test_a_job_that_ended_under_a_lost_loan_is_done(proxy: Proxy, connect: Connect) -> None:
    """A job that ended while its loan was lost does not run again where it comes back."""
    worker, other = connect(through(proxy)), connect()
    worker.enqueue(envelopes("one"))
    held = take(worker)
    loan = worker._parts.intake.loans[held[0].receipt]  # type: ignore[index]
    proxy.refuse()
    before = loan.generation
    deadline = time.monotonic() + 20
    while loan.lane.generation == before:
        time.sleep(0.01)
        assert time.monotonic() < deadline
    assert held == list(worker.ack(held))
    proxy.heal()
    while other.count(State.READY, "mail"):  # until it is lent, to a process that knows it
        with contextlib.suppress(BrokerUnavailable):
            assert [] == worker.dequeue(SESSION, MAIL, limit=1, wait=0.1)
        assert time.monotonic() < deadline
    worker.close()
    assert [] == other.dequeue(SESSION, MAIL, limit=1, wait=0.5)


def test_a_refused_login_says_so_at_once(rabbit: RabbitServer, connect: Connect) -> None:
    """A wrong password and a vhost that is not there are told, not waited out."""
    for url in (
        rabbit.url.replace("guest:guest", "guest:wrong"),
        f"{rabbit.url}/nowhere",
    ):
        before = time.monotonic()
        with pytest.raises(BrokerError) as caught:
            connect(url).enqueue(envelopes("one"))
        assert not isinstance(caught.value, BrokerUnavailable)
        assert time.monotonic() - before < 4.0


def test_any_of_several_hosts_will_do(rabbit: RabbitServer, connect: Connect) -> None:
    """Of several hosts one that answers is used."""
    url = f"amqp://guest:guest@127.0.0.1:1,127.0.0.1:{rabbit.port}"
    broker = connect(url)
    broker.enqueue(envelopes("one"))
    assert ["one"] == ids(take(broker))


def print_it(what: str) -> None: ...


def test_a_queued_job_is_cancelled(connect: Connect) -> None:
    """What the broker shows is removed, though it shows nothing of scheduled jobs."""
    broker = connect()
    client = goose.Client(broker, settings=Settings(store="memory://orders"))
    job = client.enqueue(print_it, "x")

    assert {job.id: "removed"} == client.cancel(job)
    assert 0 == broker.count(State.READY)
