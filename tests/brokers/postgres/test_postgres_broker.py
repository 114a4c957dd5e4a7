"""What is PostgreSQL's own: tables, plans, notices, forks, locks, the SQL function, options."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import goose
from goose import brokers
from goose.brokers.base import Session, Share, State
from goose.brokers.postgres import PostgresBroker, broker, checks
from goose.brokers.postgres.arrays import numbers, teach, texts
from goose.brokers.postgres.options import read
from goose.brokers.postgres.statements import VERSION, statement
from goose.errors import BrokerError, BrokerUnavailable, ConfigError, SessionLost
from goose.jobs import Envelope, decode
from tests.brokers.postgres.roles import grant, make_roles
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import PostgresServer

Connect = Callable[..., PostgresBroker]
MAIL = [Share("mail")]


@pytest.fixture
def connect(postgres_server: PostgresServer) -> Iterator[Connect]:
    """Makes brokers on one fresh namespace, closed after the test."""
    made: list[PostgresBroker] = []
    namespace = uuid.uuid4().hex

    def make(url: str = postgres_server.url, **options: Any) -> PostgresBroker:
        made.append(PostgresBroker(url, **{"namespace": namespace, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def opened(broker: PostgresBroker, name: str = "worker") -> Session:
    """Return a session that lives for the whole test."""
    session = Session(f"{name}-{uuid.uuid4()}")
    broker.open(session, ttl=60)
    return session


def jobs(count: int, queue: str = "mail", prefix: str = "job") -> list[Envelope]:
    """Return *count* envelopes."""
    return [Envelope(f"{prefix}-{number:05}", queue, b"body") for number in range(count)]


class Call(threading.Thread):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._call()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def result(self, seconds: float = 10.0) -> Any:
        """Return what the call returned, which must be in time."""
        self.join(seconds)
        assert not self.is_alive(), "it still waits"
        if self.error is not None:
            raise self.error
        return self.value


# --- URLs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://", {"where": "localhost:5432"}),
        ("postgres://ada:p%40ss@h:7/db", {"where": "h:7/db"}),
        ("postgresql://a,b:7/db", {"where": "a:5432,b:7/db"}),
        ("postgresql://h/db?namespace=shop&notify=off", {"schema": "goose_shop", "notify": "off"}),
        ("postgresql://h/db?pool=3&timeout=800ms", {"schema": "goose", "pool": 3, "timeout": 0.8}),
        ("postgresql://h/db?dead_max_age=7d&migrate=off", {"dead_max_age": 604800.0}),
    ],
)
def test_a_url_says_where_and_how(url: str, told: dict[str, Any]) -> None:
    """Every part of a URL is read."""
    options = read(url, {})

    assert told == {name: getattr(options, name) for name in told}


def test_the_rest_of_a_url_is_libpqs() -> None:
    """Options that are not Goose's go to libpq; a standby is never taken for the server."""
    server = read("postgresql://u:p%40s@h/db?sslmode=require&pool=3", {}).server

    assert "require" == server["sslmode"]
    assert ("u", "p@s", "h", "db") == tuple(
        server[k] for k in ("user", "password", "host", "dbname")
    )
    assert "read-write" == server["target_session_attrs"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://h/db?namespce=x", "did you mean 'namespace'"),
        ("postgresql://h/db?sslmod=x", "did you mean 'sslmode'"),
        ("postgresql://h/db?notify=maybe", "on or in_transaction or off"),
        ("postgresql://h/db?timeout=0", "100ms to 1h"),
        ("postgresql://h/db?namespace=a-b", "A-Z a-z 0-9 _"),
        ("postgresql://u:secret@h:port/db", "no URL of PostgreSQL"),
        ("postgresql://u:secret@h/db?pool=0", "1 or more"),
        ("postgresql://u:secret@h/db?pool=ten", "pool = 'ten' of .*: give a whole number"),
    ],
)
def test_nonsense_is_refused_kindly(url: str, said: str) -> None:
    """A wrong URL is refused when the broker is made, by a message that helps and hides secrets."""
    with pytest.raises(ConfigError, match=said) as told:
        PostgresBroker(url)

    assert "secret" not in str(told.value)


def test_schemes_are_registered() -> None:
    """Both schemes lead to this broker."""
    names = {entry.name for entry in importlib.metadata.entry_points(group="goose.brokers")}
    assert {"postgresql", "postgres"} <= names
    for scheme in ("postgresql", "postgres"):
        assert isinstance(brokers.connect(f"{scheme}://h/db"), PostgresBroker)


# --- tables ------------------------------------------------------------------------------


def test_many_may_come_first(connect: Connect) -> None:
    """Tables are made once, however many programs use them first at the same time."""
    made = [connect() for _ in range(8)]
    calls = [Call(lambda b=b: b.enqueue(jobs(1, prefix=uuid.uuid4().hex))) for b in made]
    for call in calls:
        call.result()

    assert 8 == connect().count(State.READY)


def test_tables_that_were_dropped_are_made_again(
    connect: Connect, postgres_server: PostgresServer
) -> None:
    """When somebody drops the tables, one call says that they are missing, and the next makes them."""
    broker = connect()
    broker.enqueue(jobs(1))
    postgres_server.execute(f'DROP SCHEMA "{broker.options.schema}" CASCADE')
    with pytest.raises(BrokerError, match="tables are missing"):
        broker.enqueue(jobs(1))
    broker.enqueue(jobs(1))
    assert 1 == broker.count(State.READY)


def test_tables_may_be_the_owners_business(
    connect: Connect, postgres_server: PostgresServer
) -> None:
    """With ``migrate=off``, and without the privilege, missing tables are said to be missing."""
    make_roles(postgres_server)
    with pytest.raises(BrokerError, match="goose migrate"):
        connect(migrate="off").enqueue(jobs(1))
    with pytest.raises(BrokerError, match="lacks a privilege"):
        connect(postgres_server.url_of("goose_client")).enqueue(jobs(1))


def test_versions_of_tables(connect: Connect, postgres_server: PostgresServer) -> None:
    """Tables of a later version are used as long as they say that they may be."""
    first = connect()
    first.migrate()
    schema = first.options.schema
    postgres_server.execute(
        f'INSERT INTO "{schema}".meta (version, oldest) VALUES ({VERSION + 1}, 1)'
    )
    connect().enqueue(jobs(1))
    postgres_server.execute(f'INSERT INTO "{schema}".meta VALUES ({VERSION + 2}, {VERSION + 1})')

    with pytest.raises(BrokerError, match="upgrade goose-jobs"):
        connect().enqueue(jobs(1))


def test_the_printed_statements_make_the_tables(
    connect: Connect, postgres_server: PostgresServer
) -> None:
    """What ``goose migrate --sql`` prints is all that an owner has to run."""
    made = connect(migrate="off")
    postgres_server.execute(made.migration())
    made.enqueue(jobs(2))

    assert 2 == made.count(State.READY)


def test_least_privileges(connect: Connect, postgres_server: PostgresServer) -> None:
    """Each role of the documentation can do its part, and not the others'."""
    make_roles(postgres_server)
    owner = connect()
    owner.migrate()
    with postgres_server.connect() as connection:
        grant(connection, owner.options.schema)
    client, worker, console = (
        connect(postgres_server.url_of(f"goose_{role}"), migrate="off")
        for role in ("client", "worker", "console")
    )
    client.enqueue([*jobs(2), Envelope("later", "mail", b"", delay=100)])
    with postgres_server.connect(autocommit=False) as connection:
        connection.execute("SET ROLE goose_client")
        client.enqueue_within(connection, jobs(1, prefix="within"))
    session = opened(worker)
    lent = worker.dequeue(session, MAIL, limit=1, wait=0)
    worker.bury([(delivery, delivery.envelope) for delivery in lent])

    assert ["job-00000"] == list(console.replay([lent[0].envelope]))
    assert ["job-00001"] == list(console.delete(["job-00001"], state=State.READY))
    assert ["later"] == list(console.promote(["later"]))
    for call in (
        lambda: client.count(State.READY),
        lambda: client.dequeue(session, MAIL, limit=1, wait=0),
        lambda: console.enqueue(jobs(1, prefix="console")),
    ):
        with pytest.raises(BrokerError, match="lacks a privilege"):
            call()


def test_a_server_that_may_lose_jobs_is_warned_of(connect: Connect) -> None:
    """Settings that lose jobs are named; in strict mode they are refused."""
    assert [] == checks.problems({"fsync": "on", "server_encoding": "UTF8"})
    assert 4 == len(
        checks.problems(dict.fromkeys(checks.SETTINGS[:3], "off") | {"server_encoding": "LATIN1"})
    )
    with pytest.raises(ConfigError, match="fsync is off"):
        connect(strict=True).enqueue(jobs(1))
    with pytest.raises(ConfigError, match="use 13"):
        checks.check("here", 120_004, {}, strict=False)


# --- the SQL function --------------------------------------------------------------------


def test_any_program_may_enqueue_by_sql(connect: Connect, postgres_server: PostgresServer) -> None:
    """``goose.enqueue`` stores a job as the wire format says, in the caller's transaction, and wakes."""
    broker = connect()
    session = opened(broker)
    call = f'SELECT "{broker.options.schema}".enqueue'
    with postgres_server.connect() as ear, postgres_server.connect(autocommit=False) as caller:
        ear.execute(f'LISTEN "{broker.options.schema}"')
        query = f"""{call}('app.tasks:greet', '["Ada", null]', '{{"born": null}}', queue => 'mail',
            retry => '{{"max_retries": 3}}', timeout => 2.5)"""
        [name] = caller.execute(query).fetchone() or ()
        assert 0 == broker.count(State.READY)
        caller.commit()
        assert ["mail"] == [n.payload for n in ear.notifies(timeout=5, stop_after=1)]
    [lent] = broker.dequeue(session, MAIL, limit=2, wait=0)
    job = decode(lent.envelope)

    assert (name, "app.tasks:greet", ("Ada", None), {"born": None}, "mail") == (
        job.id, job.fn, job.args, job.kwargs, job.queue,
    )  # fmt: skip
    assert "7" == uuid.UUID(name).hex[12]
    assert ({"max_retries": 3}, 2.5) == (job.retry, job.timeout)
    assert abs(job.enqueued_at - time.time()) < 5


def test_jobs_by_sql_may_be_due_later(connect: Connect, postgres_server: PostgresServer) -> None:
    """A delay and an instant are taken as the client's are; nonsense is refused."""
    broker = connect()
    broker.migrate()
    call = f'SELECT "{broker.options.schema}".enqueue'
    postgres_server.execute(f"{call}('a:b', delay => '1 hour')")
    postgres_server.execute(f"{call}('a:b', due_at => now() + interval '2 hours')")
    postgres_server.execute(f"{call}('a:b', due_at => now() - interval '2 hours')")
    dues = [item.at - time.time() for item in broker.page(State.SCHEDULED).items]

    assert [3600, 7200] == [round(due, -2) for due in dues]
    assert 1 == broker.count(State.READY)
    for wrong in ("'nothing'", "'a:b', '{}'", "'a:b', queue => 'no spaces'", "NULL"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            postgres_server.execute(f"{call}({wrong})")


# --- plans -------------------------------------------------------------------------------


def plan(connection: psycopg.Connection[Any], schema: str, session: Session) -> dict[str, Any]:
    """Return how the server would lend jobs now."""
    teach(connection.adapters)
    values = {
        "session": session.id, "epoch": 1, "queues": texts(["mail", "other"]), "floors": numbers([0, 0]), "limit": 10,
        "receipt": 1,
    }  # fmt: skip
    query = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement("dequeue", schema)
    with connection.transaction(force_rollback=True):
        [found] = connection.execute(query, values).fetchone() or ()
    return found[0]["Plan"] if isinstance(found, list) else json.loads(found)[0]["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return every step of *plan*."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


@pytest.mark.parametrize("notify", ["on", "off"])
@pytest.mark.parametrize("analyzed", [False, True])
def test_lending_goes_by_the_index(
    connect: Connect, postgres_server: PostgresServer, notify: str, analyzed: bool
) -> None:
    """Among many jobs, lending reads the index of ready ones in its order, and no job more than it lends."""
    broker = connect(notify=notify)
    session = opened(broker)
    if not analyzed:
        broker.dequeue(session, MAIL, limit=1, wait=0)
    schema = broker.options.schema
    for number in range(20):
        broker.enqueue(jobs(1000, prefix=f"part{number}"))
    if analyzed:
        postgres_server.execute(f'ANALYZE "{schema}".jobs')
    with broker._connections.lend() as connection:
        found = list(nodes(plan(connection, schema, session)))
    reads = [n for n in found if n.get("Relation Name") == "jobs" and "Scan" in n["Node Type"]]
    index = [n for n in reads if n.get("Index Name") == "jobs_ready"]

    assert [] == [n for n in reads if n["Node Type"] in ("Seq Scan", "Bitmap Heap Scan")]
    assert [] == [n for n in found if n["Node Type"] == "Sort"]
    assert 1 == len(index), reads
    assert index[0]["Actual Rows"] <= 10


@pytest.mark.parametrize("setting", ["enable_hashjoin", "enable_nestloop", "enable_mergejoin"])
def test_no_plan_lends_more_than_the_limit(
    connect: Connect, postgres_server: PostgresServer, setting: str
) -> None:
    """However the planner joins, at most *limit* jobs are lent, the first ones."""
    postgres_server.execute(f"CREATE ROLE {setting} LOGIN SUPERUSER")
    postgres_server.execute(f"ALTER ROLE {setting} SET {setting} = off")
    for notify in ("on", "off"):
        broker = connect(postgres_server.url_of(setting), notify=notify)
        session = opened(broker)
        broker.enqueue(jobs(100))
        lent = broker.dequeue(session, [*MAIL, Share("other")], limit=7, wait=0)
        assert [f"job-{n:05}" for n in range(7)] == [d.envelope.id for d in lent]
        assert 7 == broker.count(State.RUNNING)
        broker.release(lent)


# --- notices -----------------------------------------------------------------------------


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do not look by themselves while they wait."""
    monkeypatch.setattr(broker, "POLL", 3600.0)


def asleep(broker: PostgresBroker, session: Session) -> Call:
    """Return a dequeue that waits, and hears."""
    call = Call(lambda: broker.dequeue(session, MAIL, limit=1, wait=30))
    assert broker._ear is not None
    assert broker._ear.listens.wait(10)
    return call


def test_a_notice_wakes_another_process_worker(connect: Connect, blind: None) -> None:
    """What one broker object stores, schedules, promotes or gives back ends the wait of another."""
    here, there = connect(), connect()
    mine, other = opened(here), opened(there)
    for number, act in enumerate(
        (
            lambda _: here.enqueue(jobs(1, prefix="new")),
            lambda _: here.schedule([Envelope("later", "mail", b"", delay=0.2)]),
            here.release,
            lambda held: here.requeue([(d, d.envelope) for d in held]),
        )
    ):
        here.enqueue(jobs(1, prefix=f"held{number}"))
        held = here.dequeue(mine, MAIL, limit=1, wait=0)
        call = asleep(there, other)
        act(held)
        [lent] = call.result()
        assert [] == list(there.ack([lent]))


def test_a_listener_that_was_cut_off_comes_back(
    connect: Connect, postgres_server: PostgresServer, blind: None, wait_until: Callable[..., None]
) -> None:
    """When the connection that listens is ended, another is made, and what was missed is looked for."""
    here, there = connect(), connect()
    session = opened(there)
    call = asleep(there, session)
    ear = there._ear
    assert ear is not None
    assert 1 <= postgres_server.end_backends("LISTEN%")
    wait_until(lambda: ear.connected > 1, what="it listens again")
    here.enqueue(jobs(1))

    assert ["job-00000"] == [delivery.envelope.id for delivery in call.result()]


def test_without_notices_workers_look(connect: Connect) -> None:
    """With ``notify=off`` nothing listens, and a worker finds a job within about half a second."""
    here, there = connect(notify="off"), connect(notify="off")
    session = opened(there)
    call = Call(lambda: there.dequeue(session, MAIL, limit=1, wait=30))
    here.enqueue(jobs(1))

    assert 1 == len(call.result(5))
    assert None is there._ear is there._bell


def test_many_notices_become_few(connect: Connect, postgres_server: PostgresServer) -> None:
    """However many jobs are stored, notices are sent a bounded number of times a second."""
    broker = connect()
    broker.migrate()
    with postgres_server.connect() as ear:
        ear.execute(f'LISTEN "{broker.options.schema}"')
        began = time.monotonic()
        for number in range(300):
            broker.enqueue(jobs(1, prefix=f"n{number}"))
        took = time.monotonic() - began
        heard = len(list(ear.notifies(timeout=0.3)))

    assert 1 <= heard <= 2 + took / 0.01


def test_storing_takes_no_lock_of_notices(
    own_server: PostgresServer, wait_until: Callable[..., None]
) -> None:
    """While a transaction that notifies cannot end, and holds the server's lock for that, jobs are stored."""
    own_server.execute("ALTER ROLE postgres SET synchronous_commit = local")
    broker = PostgresBroker(own_server.url, timeout=2)
    broker.migrate()
    own_server.execute("ALTER SYSTEM SET synchronous_standby_names = nobody")
    own_server.execute("SELECT pg_reload_conf()")
    holder = Call(
        lambda: own_server.execute(
            "SET synchronous_commit = on; BEGIN; NOTIFY something; CREATE TABLE something (); COMMIT"
        )
    )
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: own_server.execute(waiting) == [(1,)], what="its commit waits for a standby")
    for number in range(20):
        broker.enqueue(jobs(1, prefix=f"n{number}"))

    assert holder.is_alive()
    assert 20 == broker.count(State.READY)
    broker.close()


# --- forks -------------------------------------------------------------------------------


def test_both_sides_of_a_fork_go_on(connect: Connect) -> None:
    """A child makes connections of its own, and the parent's are not disturbed by its end."""
    broker = connect()
    session = opened(broker)
    broker.enqueue(jobs(1, prefix="before"))
    [lent] = broker.dequeue(session, MAIL, limit=1, wait=0.1)
    children = []
    for number in range(3):
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                broker.enqueue(jobs(5, prefix=f"child{number}"))
                broker.close()
                code = 0
            os._exit(code)
        children.append(child)
        broker.enqueue(jobs(5, prefix=f"parent{number}"))
    codes = [os.waitpid(child, 0)[1] for child in children]

    assert [0, 0, 0] == codes
    assert [] == list(broker.ack([lent]))
    assert 30 == broker.count(State.READY)


def test_a_fork_in_the_middle_of_the_first_use(connect: Connect) -> None:
    """A child whose parent was just looking at the server, and at the jobs, looks for itself."""
    broker = connect()
    with broker._starting, broker._floors._guard:
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                session = opened(broker)
                broker.enqueue(jobs(1))
                code = len(broker.dequeue(session, MAIL, limit=1, wait=1)) - 1
            os._exit(code)
    assert 0 == os.waitpid(child, 0)[1]


# --- two sessions, held at each boundary ---------------------------------------------------


def waits_for_a_lock(server: PostgresServer, schema: str) -> bool:
    """Return whether a backend waits for a lock over the tables in *schema*."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    return bool(server.execute(query, [f"%{schema}%"])[0][0])


def run(connection: psycopg.Connection[Any], verb: str, schema: str, **values: Any) -> int:
    """Run a statement of the broker's inside the transaction of *connection*."""
    teach(connection.adapters)
    return connection.execute(statement(verb, schema), values).rowcount


def test_a_claim_under_way_is_waited_for(
    connect: Connect, postgres_server: PostgresServer, wait_until: Callable[..., None]
) -> None:
    """Who declares a session dead waits for the loan just being made, and then takes it over."""
    broker = connect()
    dying, heir = opened(broker, "dying"), opened(broker, "heir")
    broker.enqueue(jobs(2))
    schema = broker.options.schema
    with postgres_server.connect(autocommit=False) as claim:
        run(
            claim,
            "dequeue",
            schema,
            session=dying.id,
            epoch=1,
            queues=texts(["mail"]),
            floors=numbers([0]),
            limit=1,
            receipt=7,
        )
        recovery = Call(lambda: broker.recover(heir, limit=10, dead=dying))
        wait_until(lambda: waits_for_a_lock(postgres_server, schema), what="recovery waits")
        assert recovery.is_alive()
        claim.commit()
    found = list(recovery.result())
    found += broker.recover(heir, limit=10, dead=dying)

    assert ["job-00000"] == [delivery.envelope.id for delivery in found]
    assert [] == list(broker.audit(heir, limit=10))


def test_a_claim_waits_for_a_declaration_of_death(
    connect: Connect, postgres_server: PostgresServer, wait_until: Callable[..., None]
) -> None:
    """A claim, a heartbeat and an end that come while their session is declared dead do not count."""
    broker = connect()
    dying, heir = opened(broker, "dying"), opened(broker, "heir")
    broker.enqueue(jobs(2))
    [lent] = broker.dequeue(dying, MAIL, limit=1, wait=0)
    schema = broker.options.schema
    with postgres_server.connect(autocommit=False) as reap:
        who = {"session": heir.id, "epoch": 1, "dead": dying.id, "dead_epoch": 1}
        assert 1 == run(reap, "lapse", schema, **who)
        calls = [
            Call(lambda: broker.dequeue(dying, MAIL, limit=1, wait=0)),
            Call(lambda: broker.heartbeat(dying, ttl=60)),
        ]
        wait_until(lambda: waits_for_a_lock(postgres_server, schema), what="they wait")
        # An ack of before the declaration still counts; it holds no lock on the session.
        assert [] == list(broker.ack([lent]))
        reap.commit()
    for call in calls:
        with pytest.raises(SessionLost):
            call.result()
    assert [] == list(broker.recover(heir, limit=10, dead=dying))
    assert 1 == broker.count(State.READY)


def test_an_end_sees_the_loan_it_waited_for(
    connect: Connect, postgres_server: PostgresServer, wait_until: Callable[..., None]
) -> None:
    """A session does not end while a loan to it is under way."""
    broker = connect()
    session = opened(broker)
    broker.enqueue(jobs(1))
    schema = broker.options.schema
    with postgres_server.connect(autocommit=False) as claim:
        run(
            claim,
            "dequeue",
            schema,
            session=session.id,
            epoch=1,
            queues=texts(["mail"]),
            floors=numbers([0]),
            limit=1,
            receipt=7,
        )
        ending = Call(lambda: broker.end(session))
        wait_until(lambda: waits_for_a_lock(postgres_server, schema), what="the end waits")
        claim.commit()

    assert False is ending.result()
    assert 1 == len(broker.held(session))


def test_a_transfer_under_way_beats_the_ack(
    connect: Connect, postgres_server: PostgresServer, wait_until: Callable[..., None]
) -> None:
    """An ack by the old receipt that waits for a transfer finds that the loan is another's."""
    broker = connect()
    dead, heir = opened(broker, "dead"), opened(broker, "heir")
    broker.enqueue(jobs(1))
    lent = broker.dequeue(dead, MAIL, limit=1, wait=0)
    schema = broker.options.schema
    # The ack begins before the death is known: its own look at the session is passed already.
    with postgres_server.connect(autocommit=False) as reap:
        who = {"session": heir.id, "epoch": 1, "dead": dead.id, "dead_epoch": 1}
        run(reap, "lapse", schema, **who)
        assert 1 == run(reap, "recover", schema, **who, limit=10, receipt=99)
        ack = Call(lambda: broker.ack(lent))
        wait_until(lambda: waits_for_a_lock(postgres_server, schema), what="the ack waits")
        reap.commit()

    assert lent == list(ack.result())
    assert ["job-00000"] == [delivery.envelope.id for delivery in broker.held(heir)]


@pytest.mark.parametrize("notify", ["on", "off"])
def test_any_default_isolation_will_do(postgres_server: PostgresServer, notify: str) -> None:
    """On a database whose transactions are serializable, crowds take and settle without an error."""
    name = f"strict_{notify}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    postgres_server.execute(
        f"ALTER DATABASE {name} SET default_transaction_isolation = serializable"
    )
    broker = PostgresBroker(f"{postgres_server.url_of('postgres', name)}?notify={notify}")
    broker.enqueue(jobs(200))

    def drain() -> list[str]:
        session, found = opened(broker), []
        misses = 0
        while misses < 3:
            lent = broker.dequeue(session, MAIL, limit=5, wait=0.2)
            misses = 0 if lent else misses + 1
            assert [] == list(broker.ack(lent))
            found += [delivery.envelope.id for delivery in lent]
        return found

    calls = [Call(drain) for _ in range(4)]
    found = [name for call in calls for name in call.result(30)]
    assert [f"job-{n:05}" for n in range(200)] == sorted(found)
    broker.close()


def test_batches_in_any_order_do_not_lock_each_other(connect: Connect) -> None:
    """Two that store the same ids in opposite orders, and two that settle the same loans, both end."""
    broker = connect()
    session = opened(broker)
    for turn in range(10):
        batch = jobs(200, prefix=f"turn{turn}")
        both = [Call(lambda b=b: broker.enqueue(b)) for b in (batch, batch[::-1])]
        assert [None, None] == [call.result() for call in both]
        lent = []
        while len(lent) < 200:
            lent += broker.dequeue(session, MAIL, limit=200, wait=1)
        acks = [Call(lambda x=x: broker.ack(x)) for x in (lent, lent[::-1])]
        assert 200 == sum(len(call.result()) for call in acks)
    assert [] == list(broker.queues())


def test_a_locked_row_is_said_to_be_locked(
    connect: Connect, postgres_server: PostgresServer
) -> None:
    """Who must wait for a lock for too long is told so in time, and nothing happened."""
    broker = connect(timeout=1)
    session = opened(broker)
    schema = broker.options.schema
    with postgres_server.connect(autocommit=False) as holder:
        holder.execute(f'LOCK TABLE "{schema}".jobs')
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="locked"):
            broker.enqueue(jobs(1))
        assert time.monotonic() - began < 5
    broker.enqueue(jobs(1))
    assert 1 == len(broker.dequeue(session, MAIL, limit=5, wait=0))


def test_a_pooler_without_notify_off_is_named(pgbouncer: Pgbouncer) -> None:
    """Who forgets ``notify=off`` behind a pooler works or is told what to add; no job is lost by it."""
    url = pgbouncer.url.partition("?")[0]
    broker = PostgresBroker(url, namespace=uuid.uuid4().hex)
    stored, said = 0, set()
    for number in range(30):
        try:
            broker.enqueue(jobs(1, prefix=f"n{number}"))
            stored += 1
        except BrokerError as error:
            said.add("notify=off" in str(error))
    assert said <= {True}
    broker.close()
    plain = PostgresBroker(pgbouncer.url, namespace=broker.options.namespace)
    assert stored <= plain.count(State.READY)
    plain.close()


def test_the_command_makes_tables(
    postgres_server: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """``goose migrate`` makes the tables, ``--sql`` prints them, and other brokers say they have none."""
    from goose.cli.migrate import command

    url = f"{postgres_server.url}?namespace={uuid.uuid4().hex}&migrate=off"
    command.main(["--broker", url, "--sql"], standalone_mode=False)
    assert "CREATE TABLE" in capsys.readouterr().out
    command.main(["--broker", url], standalone_mode=False)
    with goose.Client(url) as client:
        assert [] == list(client.inspector.queues())
    with pytest.raises(goose.Unsupported, match="no tables"):
        command.main(["--broker", "memory://"], standalone_mode=False)
