"""Promises about transactional jobs: `goose.brokers.completion.Completing`.

What a function writes is here a job that it enqueues by its connection, so the suite needs no
tables of its own.
"""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

from typing import Any

from goose.brokers.base import Broker, Delivery, Share, Transactional
from goose.brokers.completion import Completing, Completion
from goose.testing.suite.base import QUEUE, Tools, ids, job, needs

EFFECTS = "effects"


class Completions(Tools):
    """A function's writes and its job's ack are one step, and only who holds the loan makes it."""

    def test_an_ack_commits_with_what_the_job_wrote(self, broker: Broker) -> None:
        """Nothing is seen before the commit; after it the effect is there, and the job is not."""
        delivery, completion = self.begun(broker)
        self.write(broker, completion)
        assert completion.commit()
        completion.close()

        assert [delivery] == list(broker.ack([delivery])), "it was acked already"
        assert ["effect"] == self.effects(broker)

    def test_without_a_commit_nothing_happened(self, broker: Broker) -> None:
        """A completion that is closed leaves no effect, and a loan that is as good as before."""
        delivery, completion = self.begun(broker)
        self.write(broker, completion)
        completion.close()

        assert [] == self.effects(broker)
        assert [] == list(broker.release([delivery]))
        assert ["one"] == ids(self.take(broker, self.open(broker, "next"), 1))

    def test_a_zombie_writes_nothing(self, broker: Broker) -> None:
        """Who was held for dead cannot commit, and who has the job now can."""
        completing, delivery = self.lent(broker)
        heir = self.open(broker, "heir")
        [recovered] = self.recover(broker, heir, 1, dead=delivery.session)

        late = completing.begin(delivery)
        self.write(broker, late, "by the zombie")
        assert not late.commit()
        late.close()
        mine = completing.begin(recovered)
        self.write(broker, mine, "by the heir")
        assert mine.commit()
        mine.close()
        assert ["by the heir"] == self.effects(broker)

    def test_a_loan_is_committed_once(self, broker: Broker) -> None:
        """A second run of the same loan commits nothing."""
        delivery, completion = self.begun(broker)
        assert completion.commit()
        completion.close()

        again = needs(broker, Completing).begin(delivery)
        self.write(broker, again)
        assert not again.commit()
        again.close()
        assert [] == self.effects(broker)

    def test_whether_it_is_done_can_be_asked(self, broker: Broker) -> None:
        """After a commit the loan has ended; without one it has not."""
        delivery, completion = self.begun(broker)
        assert not completion.is_done()
        completion.close()
        again = needs(broker, Completing).begin(delivery)
        assert again.commit()
        assert again.is_done()
        again.close()

    def test_a_loan_that_was_given_back_cannot_commit(self, broker: Broker) -> None:
        """A job that was released and lent anew is on another loan: the first one writes nothing."""
        completing, delivery = self.lent(broker)
        broker.release([delivery])
        second = self.take(broker, delivery.session, 1)[0]

        late = completing.begin(delivery)
        self.write(broker, late)
        assert not late.commit()
        late.close()
        assert [] == self.effects(broker)
        assert [] == list(broker.ack([second]))

    def test_a_job_can_be_noted_and_stay_lent(self, broker: Broker) -> None:
        """With a note the effect commits and the job is lent still, with the other body."""
        delivery, completion = self.begun(broker)
        self.write(broker, completion)
        note = job("one", body=b"has been done")
        assert completion.commit(note)
        assert completion.is_done()
        completion.close()

        assert ["effect"] == self.effects(broker)
        assert [] == list(broker.release([delivery]))
        again = self.take(broker, delivery.session, 1)[0]
        assert b"has been done" == again.envelope.body
        late = needs(broker, Completing).begin(delivery)
        assert not late.commit(note)
        late.close()

    # --- tools ---------------------------------------------------------------------------

    def lent(self, broker: Broker) -> tuple[Completing, Delivery]:
        """Return *broker*, and a job of it that is lent."""
        completing = needs(broker, Completing)
        needs(broker, Transactional)
        session = self.open(broker)
        broker.enqueue([job("one")])
        return completing, self.take(broker, session, 1, QUEUE)[0]

    def begun(self, broker: Broker) -> tuple[Delivery, Completion]:
        """Return a loan, and the transaction that its job runs in."""
        completing, delivery = self.lent(broker)
        return delivery, completing.begin(delivery)

    def write(self, broker: Broker, completion: Completion, name: str = "effect") -> None:
        """Do what a function does by its connection."""
        connection: Any = completion.connection
        needs(broker, Transactional).enqueue_within(connection, [job(name, EFFECTS)])

    def effects(self, broker: Broker) -> list[str]:
        """Return what was written."""
        session = self.open(broker, "reader")
        found: list[str] = []
        while taken := broker.dequeue(session, [Share(EFFECTS)], limit=10, wait=0):
            found += ids(taken)
        return found
