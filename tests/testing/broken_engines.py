"""Brokers and engines with one rule taken away; the simulator must find each of them out."""

from goose.brokers.base import Session
from goose.brokers.memory import MemoryBroker
from goose.brokers.memory.store import Lease
from goose.errors import BrokerUnavailable
from goose.worker.fetch import Fetcher
from goose.worker.sessions import Heartbeat, OrphanChecker
from goose.worker.settle import Settler


class ZombiesUnnoticed(MemoryBroker):
    """A session given up may go on beating and taking jobs, which nobody looks for."""

    def __init__(self, **options):
        super().__init__(**options)
        self._leases: dict[Session, Lease] = {}

    def open(self, session, *, ttl):
        super().open(session, ttl=ttl)
        self._leases[session] = self._store.living[session]

    def _living(self, session):
        return self._leases[session]


class RegisteredOnce(ZombiesUnnoticed):
    """Opening a session is no heartbeat, so it can be given up before its first one."""

    def open(self, session, *, ttl):
        super().open(session, ttl=0.0)


class Unfenced(MemoryBroker):
    """A settle goes by the job's id, whoever has the job by now."""

    def _current(self, delivery):
        entry = self._store.jobs.get(delivery.envelope.id)
        receipt = getattr(entry, "receipt", None)
        return delivery if receipt is None else delivery.evolve(receipt=receipt)

    def ack(self, deliveries):
        return super().ack([self._current(one) for one in deliveries])

    def release(self, deliveries):
        return super().release([self._current(one) for one in deliveries])

    def requeue(self, deliveries):
        return super().requeue([(self._current(one), envelope) for one, envelope in deliveries])

    def bury(self, deliveries):
        return super().bury([(self._current(one), envelope) for one, envelope in deliveries])


class LateHeartbeat(Heartbeat):
    def step(self, now):
        if getattr(self, "late", True):
            self.late = False
            return self._ttl / 6
        return super().step(now)


def beats_late(engine):
    """The first heartbeat comes when the second is due."""
    engine.heartbeat.__class__ = LateHeartbeat


class ForgetfulSettler(Settler):
    def step(self, now):
        try:
            return super().step(now)
        except BrokerUnavailable:
            self._batches.popleft()
            raise


def forgets_a_failed_batch(engine):
    """What could not be settled at the first try never is."""
    engine.settler.__class__ = ForgetfulSettler


class ImpatientChecker(OrphanChecker):
    def _is_patient(self, now):
        return True


def gives_nobody_time(engine):
    """After an outage everybody who has not been heard yet is given up."""
    engine.checker.__class__ = ImpatientChecker


class TrustingFetcher(Fetcher):
    def doubt(self):
        pass


def doubts_nothing(engine):
    """A loan whose reply was lost stays with a process that has never heard of it."""
    engine.fetcher.__class__ = TrustingFetcher
    engine.checker._on_doubt = lambda: None


class StubbornHeartbeat(Heartbeat):
    def step(self, now):
        self._epoch = 0
        return super().step(now)


def opens_one_epoch_for_ever(engine):
    """An epoch whose opening had no reply is tried again, though it exists."""
    engine.heartbeat.__class__ = StubbornHeartbeat
