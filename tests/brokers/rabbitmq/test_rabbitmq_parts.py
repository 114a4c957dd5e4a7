"""What can be known of the RabbitMQ broker without a server: the ladder, words, URLs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker
from pika.frame import Method, decode_frame

from goose.brokers.rabbitmq import RabbitMQBroker, ladder
from goose.brokers.rabbitmq.batch import Batch
from goose.brokers.rabbitmq.confirms import Outlet, Parcel, marshal
from goose.brokers.rabbitmq.faults import Refused, translated
from goose.brokers.rabbitmq.intake import Intake
from goose.brokers.rabbitmq.ladder import climb, milliseconds
from goose.brokers.rabbitmq.lane import Lane
from goose.brokers.rabbitmq.loans import Arrival, Ended
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.options import read
from goose.brokers.rabbitmq.pace import Pace
from goose.brokers.rabbitmq.tags import Tags
from goose.brokers.rabbitmq.words import HEEDED, Hearsay, spoken
from goose.errors import BrokerError, BrokerUnavailable, ConfigError
from goose.jobs import Envelope

YEARS = 10 * 366 * 86400.0


@given(st.floats(min_value=0.001, max_value=YEARS))
def test_a_climb_is_never_too_short_and_hardly_too_long(delay: float) -> None:
    """The times to live on a delay's way, and what is left of it, make up the delay."""
    way = climb(delay)
    waited = sum(milliseconds(level, digit) for level, digit in way.steps()) / 1000
    assert delay + 0.007 <= waited + way.left + 0.0085 + (0.008 if way.left else 0.0)
    assert waited + way.left <= delay + 0.2


@given(st.floats(min_value=0.001, max_value=1e6))
def test_a_key_leads_through_the_steps_of_its_climb(delay: float) -> None:
    """At each level the digit in the key is that of the step, or 0."""
    way = climb(delay)
    *digits, queue = way.key("mail").split(".", ladder.LEVELS)
    assert "mail" == queue
    steps = dict(way.steps())
    for place, digit in enumerate(digits):
        level = ladder.LEVELS - 1 - place
        assert steps.get(level, 0) == int(digit)
        assert ladder.binding(level, int(digit)) == "*." * place + f"{digit}.#"


def test_times_to_live_fit_everywhere() -> None:
    """No step waits for longer than 32 bits of milliseconds can say."""
    longest = milliseconds(ladder.LEVELS - 1, ladder.BASE - 1)
    assert longest < 1 << 32


@given(
    st.text(max_size=60),
    st.binary(max_size=300),
    st.integers(min_value=20, max_value=400),
    st.booleans(),
)
def test_messages_are_what_the_driver_would_write(
    name: str, body: bytes, limit: int, with_headers: bool
) -> None:
    """The frames of a message read back as what went in, in pieces of any size."""
    headers = {"goose-group": "tenant"} if with_headers else None
    raw = marshal(7, Parcel("exchange", "key", name, body, headers), limit, 1)
    frames = []
    while raw:
        size, frame = decode_frame(raw)
        assert frame is not None
        assert size
        assert 7 == frame.channel_number
        frames.append(frame)
        raw = raw[size:]
    method, header, *pieces = frames
    publish = method.method
    assert ("exchange", "key", True) == (publish.exchange, publish.routing_key, publish.mandatory)
    properties: BasicProperties = header.properties
    assert (name, 2, headers) == (
        properties.message_id,
        properties.delivery_mode,
        properties.headers,
    )
    assert len(body) == header.body_size
    assert body == b"".join(piece.fragment for piece in pieces)


class _Channel:
    """What an outlet needs of a channel."""

    channel_number = 1
    is_open = True

    def close(self) -> None:
        self.is_open = False


class _Waiting:
    def __init__(self, *, doubtful: bool = False) -> None:
        self.doubtful = doubtful
        self.told: list[BrokerError | None] = []

    def settle(self, error: BrokerError | None) -> None:
        self.told.append(error)


def test_of_a_refusal_and_a_doubt_the_doubt_is_told() -> None:
    """A batch of which one job was refused, and another may be stored, is not said to be absent."""
    batch = Batch([Parcel("", "mail", "a", b""), Parcel("", "mail", "b", b"")], 1e18)
    batch.settle(Refused("full"))
    batch.settle(BrokerUnavailable("sent again"))
    assert isinstance(batch.error(), BrokerUnavailable)


@pytest.mark.parametrize("lost", [False, True])
def test_what_closes_a_channel_after_a_loss_may_be_stored(lost: bool) -> None:
    """Alone after it was in company it is refused; but an earlier connection may have brought it there."""
    publisher = RabbitMQBroker("amqp://localhost")._parts.publisher
    [outlet] = publisher._outlets
    channel: Any = _Channel()
    batch = Batch([Parcel("", "mail", "a", b"")], 1e18)

    def carry() -> None:
        publisher._queue.clear()
        outlet._channel = channel
        outlet.carry((batch, batch.parcels[0]), 1 << 16)

    carry()
    if lost:
        publisher.down(ConnectionResetError("lost"))
        carry()
    outlet._closed(channel, ChannelClosedByBroker(406, "PRECONDITION_FAILED"))
    assert isinstance(batch.error(), BrokerUnavailable if lost else Refused)


@pytest.mark.parametrize("doubtful", [False, True])
def test_what_was_sent_again_and_is_refused_may_be_stored(doubtful: bool) -> None:
    """Only of a job that was on its way once does a refusal mean that it is not stored."""
    outlet = Outlet(
        "here",
        on_ready=lambda: None,
        on_room=lambda: None,
        on_closed=lambda *_: None,
        on_return=lambda *_: None,
    )
    channel: Any = _Channel()
    outlet._channel = channel
    nacked, returned = _Waiting(doubtful=doubtful), _Waiting(doubtful=doubtful)
    outlet.carry((nacked, Parcel("", "mail", "nacked", b"")), 1 << 16)
    outlet.carry((returned, Parcel("", "mail", "returned", b"")), 1 << 16)
    method = spec.Basic.Return(312, "NO_ROUTE", "", "mail")
    outlet._was_returned(channel, method, spec.BasicProperties(message_id="returned"), b"")
    outlet._answered(Method(1, spec.Basic.Nack(delivery_tag=1)))
    outlet._stored(2, False)
    for waiting in (nacked, returned):
        [told] = waiting.told
        assert isinstance(told, BrokerUnavailable if doubtful else Refused)


def test_a_channel_that_refuses_is_left_under_load_too() -> None:
    """Whoever has more to send at every answer gives it no more until what is on its way is heard of."""

    def more() -> None:
        if outlet.ready:
            outlet.carry((_Waiting(), Parcel("", "mail", "job", b"")), 1 << 16)

    outlet = Outlet(
        "here",
        on_ready=more,
        on_room=more,
        on_closed=lambda *_: None,
        on_return=lambda *_: None,
    )
    channel: Any = _Channel()
    outlet._channel = channel
    for _ in range(3):
        more()
    outlet._answered(Method(1, spec.Basic.Nack(delivery_tag=1)))
    assert 2 == outlet.unconfirmed
    outlet._stored(2, False)
    assert channel.is_open, "what is on its way is waited for"
    outlet._stored(3, False)
    assert not channel.is_open
    assert not outlet.ready


def test_a_word_is_heeded_once() -> None:
    """What a job was charged with already is not said of it again; a later word is."""
    hearsay = Hearsay()
    assert hearsay.hear(spoken("first", {"job": "alone"}))
    assert ("alone", "first") == hearsay.about("job", None)
    assert None is hearsay.about("job", "first")
    hearsay.hear(spoken("second", {"job": "suspect"}))
    assert ("suspect", "first second") == hearsay.about("job", "first")


@pytest.mark.parametrize("order", list(itertools.permutations(["first", "second", "third"])))
def test_a_word_that_is_said_again_beside_others_is_heeded_once(order: tuple[str, ...]) -> None:
    """Whichever of three deaths is told last, a job is charged with those it was not charged with before."""
    hearsay = Hearsay()
    for word in order:
        hearsay.hear(spoken(word, {"job": "alone"}))
    found = hearsay.about("job", "first second")
    assert found is not None
    assert "first second third" == found.words
    for word in reversed(order):
        hearsay.hear(spoken(word, {"job": "alone"}))

    assert None is hearsay.about("job", found.words)


def test_a_death_counts_more_than_an_excuse() -> None:
    """That a job was given back meanwhile does not hide the death it was not charged with."""
    hearsay = Hearsay()
    hearsay.hear(spoken("death", {"job": "alone"}))
    hearsay.given_back(["job"])
    assert ("alone", "death") == hearsay.about("job", None)


@pytest.mark.parametrize("order", [("alone", "suspect"), ("suspect", "alone"), ("ended", "alone")])
def test_of_several_deaths_the_gravest_counts(order: tuple[str, str]) -> None:
    """A worker that has just begun hears of several in any order, and condemns nobody the less."""
    hearsay = Hearsay()
    for verdict in order:
        hearsay.hear(spoken(verdict, {"job": verdict}))
    assert ("alone", " ".join(order)) == hearsay.about("job", None)


def test_a_death_without_an_id_is_not_heard() -> None:
    """It could be heeded again and again; only an excuse needs none."""
    hearsay = Hearsay()
    hearsay.hear(spoken("", {"job": "alone"}))
    assert None is hearsay.about("job", None)


def test_what_is_remembered_of_one_job_is_bounded() -> None:
    """Whoever says a thousand things of a job fills neither memory nor its header, whatever is in that."""
    hearsay = Hearsay()
    for number in range(1000):
        hearsay.hear(spoken(f"w{number}", {"job": "suspect"}))
    found = hearsay.about("job", "x" * 100_000)
    assert found is not None
    assert [f"w{number}" for number in range(992, 1000)] == found.words.split()[-8:]
    assert len(found.words) < 4_000


def test_an_excuse_outlasts_words_that_were_heeded() -> None:
    """A job that was given back need not wait, though an old death is told again meanwhile."""
    hearsay = Hearsay()
    hearsay.given_back(["job"])
    hearsay.hear(spoken("death", {"job": "alone"}))
    assert ("unstarted", "") == hearsay.about("job", "death")
    assert None is hearsay.about("job", "death")


def test_an_excuse_that_is_repeated_is_for_one_return() -> None:
    """A neighbour of a job that was killed is excused once, though survivors say so for minutes."""
    hearsay = Hearsay()
    hearsay.hear(spoken("killed", {"job": "unstarted"}))
    assert ("unstarted", "") == hearsay.about("job", None)
    hearsay.hear(spoken("killed", {"job": "unstarted"}))
    assert None is hearsay.about("job", None)


def test_a_header_keeps_the_last_words() -> None:
    """However often a job comes back, its header stays short, and what was said last is in it."""
    header = ""
    for number in range(3 * HEEDED):
        hearsay = Hearsay()
        hearsay.hear(spoken(f"w{number}", {"job": "suspect"}))
        found = hearsay.about("job", header)
        assert found is not None
        header = found.words

    assert [f"w{number}" for number in range(2 * HEEDED, 3 * HEEDED)] == header.split()


def test_an_ended_job_is_known_once_and_by_its_body() -> None:
    """A job that ended under a lost loan is recognised when it returns; one stored anew is not."""
    ended = Ended()
    ended.note("job", b"first")
    assert not ended.knows("job", b"second")
    assert ended.knows("job", b"first")
    assert not ended.knows("job", b"first")


def test_a_lane_is_as_far_ahead_as_it_is_taken_from() -> None:
    """Tiny jobs are held ahead by what is taken in 50 ms, slow ones not at all, after a lull neither."""
    pace = Pace()
    found = []
    for now, taken in ((9.0, 0), (9.125, 1000), (9.25, 1), (10.0, 1000), (10.125, 100_000)):
        for _ in range(taken):
            pace.take()
        found.append(pace.ahead(now))
    pace.take()

    assert [0, 400, 0, 0, 1000] == found
    assert 0 == pace.ahead(10.2), "too soon to tell"


def test_what_comes_after_the_last_consumer_is_given_back() -> None:
    """Jobs that the server had under way when a lane ended its consumers are not kept for ever."""
    options = read("amqp://localhost", {})
    intake = Intake(
        options,
        Names(options),
        on_lost=lambda _: None,
        announce=lambda _: None,
        on_parked=lambda *_: None,
    )
    lane = Lane(intake, "mail")
    given: list[int] = []
    lane.nack = given.extend  # type: ignore[method-assign]
    lane.asked_mono = 100.0
    lane.buffer.append(Arrival(7, "late", b"", None, arrived_mono=100.0))

    lane.sweep(100.0 + intake.options.hold / 2)
    assert [] == given
    lane.sweep(100.0 + 2 * intake.options.hold)
    assert [7] == given
    assert not lane.buffer
    assert not lane._busy


@given(st.permutations(range(1, 9)), st.integers(1, 8))
def test_tags_are_settled_with_few_words(order: list[int], size: int) -> None:
    """Whatever the order, what is said settles each tag exactly once, and none that is still lent."""
    tags = Tags()
    lent = set(range(1, 9))
    for tag in sorted(lent):
        tags.lend(tag)
    for start in range(0, 8, size):
        settled: set[int] = set()
        said: list[tuple[int, bool]] = []
        tags.settle(
            order[start : start + size], lambda tag, below, said=said: said.append((tag, below))
        )
        for tag, below in said:
            settled |= {known for known in lent if known < tag} if below else set()
            settled.add(tag)
        assert set(order[start : start + size]) == settled
        lent -= settled


def test_a_return_is_excused_once() -> None:
    """That a job was given back unstarted explains its next loan, and none after that."""
    hearsay = Hearsay()
    hearsay.given_back(["job"])
    assert hearsay.about("job", None)
    assert None is hearsay.about("job", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"word": 1}',
        b'{"word": 1, "verdicts": []}',
        b'{"word": "a b", "verdicts": {"job": "alone"}}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_nonsense_is_not_heard(body: bytes) -> None:
    """Whoever may write to the server may say anything, and nothing comes of it."""
    hearsay = Hearsay()
    assert not hearsay.hear(body)
    assert None is hearsay.about("job", None)


def test_a_long_id_is_known_by_its_beginning() -> None:
    """Survivors know only the first bytes of an id; that is enough."""
    hearsay = Hearsay()
    hearsay.hear(spoken("word", {"x" * 200: "alone"}))
    assert hearsay.about("x" * 250, None)


def test_urls_say_where_and_how() -> None:
    """Hosts, ports, vhost, credentials and options come from the URL, percent-decoded."""
    options = read("amqps://u%40x:p%2Fw@one,two:5,three/v%2Fh?heartbeat=20s&queue_type=classic", {})
    assert (("one", 5671), ("two", 5), ("three", 5671)) == options.hosts
    assert (True, "u@x", "p/w", "v/h") == (
        options.tls,
        options.username,
        options.password,
        options.vhost,
    )
    assert (20, "classic") == (options.heartbeat, options.queue_type)
    assert "/" == read("amqp://host", {}).vhost == read("amqp://host/", {}).vhost


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://host/a/b", "after the vhost"),
        ("amqp://host?hearbeat=3", "did you mean 'heartbeat'"),
        ("amqp://host?heartbeat=0.5", "use 1 s"),
        ("amqp://host?queue_type=stream", "quorum or classic"),
        ("amqp://host?channels=500", "use 1 to 100"),
        (
            "amqp://host?channels=ten",
            "option channels = 'ten' of 'amqp://host': give a whole number",
        ),
        ("amqp://host?timeout=forever", "use seconds"),
        ("amqp://user:secret@host:port", "is no RabbitMQ URL .port 'port' is no number"),
    ],
)
def test_a_wrong_url_is_told_without_its_secrets(url: str, said: str) -> None:
    """A URL or option that makes no sense raises, names the fix, and keeps the password."""
    with pytest.raises(ConfigError, match=said) as caught:
        RabbitMQBroker(url)
    assert "secret" not in str(caught.value)


def test_nobody_there_is_said_in_short() -> None:
    """A refused connection, as the driver wraps it, needs no error's name."""
    refused = AMQPConnectionError(ConnectionRefusedError(111, "Connection refused"))

    assert "RabbitMQ at h:1: connection refused; is RabbitMQ running there?" == str(
        translated(refused, "h:1")
    )


def test_a_server_that_is_not_there_has_got_nothing() -> None:
    """Jobs for whose queue, or for themselves, no connection could be made were not sent."""
    broker = RabbitMQBroker("amqp://127.0.0.1:1", timeout=2.0, connect_timeout=0.1)
    try:
        with pytest.raises(BrokerUnavailable) as caught:
            broker.enqueue([Envelope("1", "mail", b"{}")])
        with pytest.raises(BrokerUnavailable) as directly:
            broker._parts.publisher.send([Parcel("", "mail", "1", b"{}")])
    finally:
        broker.close()

    assert (True, True) == (caught.value.unsent, directly.value.unsent)
