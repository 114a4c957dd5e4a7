"""Features in a simulated world: what each promises holds under every fault."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from goose.testing import simulate
from goose.testing.simulator import Scenario, Story, play
from goose.testing.simulator.scenario import FEATURES

sys.path.insert(0, str(Path(__file__).parent))
import broken_features

pytestmark = pytest.mark.long

SEEDS = 300
TRIED = 100
"""Worlds of which one has to find a defect."""
RARE = {
    "a line moved blindly": 350,
    "a member that was done uncounted": 400,
    "a cancel that nobody finishes": 50,
}
"""From which world on details are looked for that few worlds show."""
STORMY = {"rate": 0.15, "events": (6, 12), "patience": 400.0}


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    """What happened in 300 worlds."""
    return list(simulate.play_many(range(SEEDS), Scenario(features=FEATURES)))


@pytest.fixture(scope="module")
def seen(stories: list[Story]) -> Counter[str]:
    """What features did in all of them."""
    return sum((story.seen for story in stories), Counter[str]())


@pytest.mark.timeout(300)
def test_no_world_has_a_violation(stories: list[Story]) -> None:
    """In 300 worlds every feature keeps its promise, and everything drains by itself."""
    assert [] == [(story.seed, story.violations[0]) for story in stories if story.violations]


@pytest.mark.timeout(300)
def test_calls_to_the_store_met_faults(stories: list[Story]) -> None:
    """The store failed, too: each kind of fault, on each side of a call, found jobs in flight."""
    met: Counter[str] = sum((story.overlapped for story in stories), Counter[str]())
    kinds = [
        f"{fault} {side} {call}"
        for fault in ("crash", "pause", "error", "slow")
        for side in ("before", "after")
        for call in ("apply", "now")
    ]
    kinds += ["crash before scan", "crash after scan", "error before scan", "error after scan"]

    assert [] == [kind for kind in kinds if not met[kind]]


@pytest.mark.timeout(300)
def test_features_had_something_to_do(seen: Counter[str]) -> None:
    """What is promised was needed: keys were held, jobs cancelled, copies skipped, batches partial."""
    kinds = [
        "a unique call got another's job", "a unique call got its own job", "on_complete",
        "on_success", "a batch ended: success", "a batch ended: partial", "a batch ended: dead",
        "a flow was enqueued", "a job of a flow ran", "a job of a flow is cancelled",
        "a job of a flow is waiting", "a limited job starts beside 1", "cron has fired (all)",
        "cron has fired (one)", "cron has fired (skip)", "a job ended without a run",
        "a job that was done is stored again", "a copy was skipped", "a client got a result",
        "a client heard of a job that failed", "a client was told running",
        "a client was told skipped", "a job waited for its instant", "a job met its instant",
        "a debounced job starts", "a debounced job is skipped",
        "a throttled call got another's job", "a throttled call got its own job",
        "an instant made no job", "a job was cancelled: removed", "a job was cancelled: stopping",
        "a job was cancelled: asked", "a job was cancelled: not_found",
        "a long job begins at a cursor", "a long job is dead at a cursor",
        "a client was told how far a job is", "a batch was cancelled", "a member was cancelled",
        "a flow was cancelled", "a job of a flow was removed",
    ]  # fmt: skip

    assert [] == [kind for kind in kinds if not seen[kind]]


@pytest.mark.parametrize(
    ("feature", "seed"),
    [
        ("limit", 35),
        ("limit", 303),
        ("limit", 466),
        ("limit", 1251),
        ("unique", 166),
        ("unique", 620),
        ("result", 24),
        ("debounce", 266),
        ("debounce", 402),
        ("debounce", 1033),
        ("result,rate,debounce,throttle,unique-cron,control", 12469),
        ("throttle", 884),
        ("unique-cron", 1201),
        ("control", 90),
        ("control", 181),
        ("long", 921),
        ("batch-cancel", 279),
        ("batch-cancel", 391),
        ("flow-cancel", 352),
        ("flow-cancel", 931),
    ],
)
def test_a_world_that_once_had_a_violation(feature: str, seed: int) -> None:
    """Seeds that found a defect, in features or in what was asked of them, stay."""
    assert not play(seed, Scenario(features=tuple(feature.split(",")))).violations


def test_a_seed_replays() -> None:
    """The same seed makes the same world, traced or not."""
    scenario = Scenario(features=FEATURES)
    for seed in range(5):
        first, second = play(seed, scenario, trace=True), play(seed, scenario, trace=True)
        assert first.trace == second.trace
        assert play(seed, scenario).calls == first.calls


QUICK = set(FEATURES) - {"long", "batch-cancel", "flow-cancel"}
"""Whose worlds are small; of the others only every 27th call is one to die at."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("feature", FEATURES)
def test_a_crash_at_every_ninth_call_of_one_seed(feature: str, before: bool) -> None:
    """Whoever dies at such a call to broker or store, worker or client, breaks no promise."""
    small: dict[str, Any] = {"features": (feature,), "seats": (2, 2), "stormy": 6.0}
    quiet = play(3, Scenario(**small, crash_at=(1 << 30, before)))

    assert quiet.calls > 60
    for number in range(0, min(quiet.calls, 400), 9 if feature in QUICK else 27):
        story = play(3, Scenario(**small, crash_at=(number, before)))
        assert [] == story.violations, f"call {number}"


BROKEN: dict[str, tuple[tuple[str, ...], Any]] = {
    "the key of a job that is dead of crashes": (
        ("unique",),
        broken_features.trait("unique", broken_features.KeyOfTheCrashed),
    ),
    "a start without the key": (
        ("unique",),
        broken_features.trait("unique", broken_features.KeyForAnybody),
    ),
    "a failure that ends a member": (
        ("batch",),
        broken_features.trait("batch", broken_features.FailureIsTheEnd),
    ),
    "a copy that runs": (
        ("batch",),
        broken_features.trait("once", broken_features.DoneAgain),
    ),
    "traits told too late": (("batch", "flow"), broken_features.tells_afterwards),
    "a start without a place": (
        ("limit",),
        broken_features.trait("limit", broken_features.NoLease),
    ),
    "a lease not kept": (("limit",), broken_features.trait("limit", broken_features.NothingKept)),
    "a place kept for good": (
        ("limit",),
        broken_features.trait("limit", broken_features.NothingGivenBack),
    ),
    "a place that only lapses": (
        ("limit",),
        broken_features.trait("limit", broken_features.LapseOnly),
    ),
    "dead jobs without a record": (
        ("result",),
        broken_features.trait("result", broken_features.NothingOfTheDead),
    ),
    "a result kept too late": (("result",), broken_features.tells_afterwards),
    "a debounced start without the key": (
        ("debounce",),
        broken_features.trait("unique", broken_features.KeyForAnybody),
    ),
    "a throttle that ends with its job": (
        ("throttle",),
        broken_features.trait("unique", broken_features.HeldForNoTime),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found_out(name: str) -> None:
    """Without that rule some world of the first 100 has a violation."""
    features, change = BROKEN[name]
    scenario = Scenario(features=features, change=change, **STORMY)  # type: ignore[arg-type]

    assert any(play(seed, scenario).violations for seed in range(TRIED))


PATCHED: dict[str, tuple[str, Any, str]] = {
    "claims of the dead": (
        "unique", broken_features.forgets_claims_of_nobody, "waits for a key for ever",
    ),
    "callbacks of the dead": ("batch", broken_features.forgets_to_call_back, "is stuck"),
    "a parent ignored": ("flow", broken_features.ignores_a_parent, "one is open"),
    "a dead parent ignored": ("flow", broken_features.cancels_nothing, "not one of"),
    "a fire without a name": ("cron", broken_features.names_a_fire_by_chance, "cron fired at"),
    "a debt not noted": ("cron", broken_features.forgets_debts, "and not at"),
    "a fire without a job": ("cron", broken_features.fires_nothing, "cron fired at []"),
    "a lapsed lease passed over": ("limit", broken_features.passes_over_at_once, "starts beside"),
    "a dead lease never passed over": ("limit", broken_features.never_passes_over, "is stuck"),
    "a line ignored": ("rate", broken_features.paces_nothing, "start within"),
    "waits that cost attempts": ("rate", broken_features.waits_by_attempts, "attempts, and failed"),
    "superseded jobs forgotten": (
        "debounce", broken_features.forgets_the_superseded, "came after it",
    ),
    "a start before it is quiet": (
        "debounce", broken_features.starts_before_it_is_quiet, "after its call",
    ),
    "a throttle that goes on": ("throttle", broken_features.holds_for_too_long, "after its time"),
    "a fire without the key": ("unique-cron", broken_features.fires_without_the_key, "has the key"),
    "a key kept by a fire": ("unique-cron", broken_features.keeps_the_key, "and not at"),
    "a pause ignored": ("control", broken_features.pauses_nothing, "its queue is paused"),
    "marks ignored": ("control", broken_features.reads_no_marks, "its cancel was told"),
    "a run that begins anew": ("long", broken_features.begins_anew, "begins at None, and"),
    "only the first cursor kept": ("long", broken_features.keeps_only_once, "was kept"),
    "one cursor for all": (
        "long", broken_features.keeps_all_in_one_place, "which no run of it has kept",
    ),
    "a cursor gone with its run": ("long", broken_features.forgets_with_each_run, "is dead at None"),
    "a cursor that stays": ("long", broken_features.forgets_no_cursor, "its cursor is there"),
    "a deploy that costs an attempt": (
        "long", broken_features.postpones_by_attempts, "attempts, and failed",
    ),
    "a word of a run before": ("long", broken_features.says_it_after_others, "and now it said"),
    "a cancel of a batch ignored": (
        "batch-cancel", broken_features.cancels_no_batch, "after its batch was cancelled",
    ),
    "a cancelled member not counted": (
        "batch-cancel", broken_features.counts_no_cancelled, "is stuck",
    ),
    "a cancelled member counted as deleted": (
        "batch-cancel", broken_features.counts_cancelled_as_deleted, "is of kind 3",
    ),
    "a member that was done uncounted": (
        "batch-cancel", broken_features.counts_the_last_word, "back, not",
    ),
    "callbacks cancelled": ("batch-cancel", broken_features.cancels_callbacks, "called [] back"),
    "a cancel of what waits ignored": (
        "flow-cancel", broken_features.stops_nothing, "its cancel was told: removed",
    ),
    "a cancel of what leaves": (
        "flow-cancel", broken_features.stops_what_leaves, "its cancel was told: removed",
    ),
    "dependents not told of a cancel": (
        "flow-cancel", broken_features.stops_without_a_word, "of a flow is waiting",
    ),
    "a cancel that nobody finishes": (
        "flow-cancel", broken_features.finishes_no_stop, "of a flow is stopped",
    ),
    "a cancelled parent taken for done": (
        "flow-cancel", broken_features.takes_cancelled_for_done, "one is {'cancelled'}",
    ),
    "a word lost in an outage": ("long", broken_features.says_nothing_twice, "is shown"),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHED)
def test_a_broken_feature_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that defect some world of the first 100, or of as many later ones, shows what it does."""
    feature, spoil, shown = PATCHED[name]
    spoil(monkeypatch)
    scenario = Scenario(features=(feature,), **STORMY)  # type: ignore[arg-type]
    first = RARE.get(name, 0)
    stories = (play(seed, scenario) for seed in range(first, first + TRIED))

    assert any(shown in text for story in stories for text in story.violations)


PLAIN: dict[str, tuple[str, Any, str]] = {
    "a status asked for too early": (
        "result", broken_features.asks_for_the_record_once, "is unknown",
    ),
    "a record looked for too early": (
        "result", broken_features.looks_for_the_record_first, "for gone",
    ),
    "a line moved blindly": ("rate", broken_features.moves_the_line_blindly, "start within"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_broken_detail_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is in worlds that are no worse than others, in which more jobs get that far."""
    feature, spoil, shown = PLAIN[name]
    spoil(monkeypatch)
    first = RARE.get(name, 0)
    stories = (play(seed, Scenario(features=(feature,))) for seed in range(first, first + TRIED))

    assert any(shown in text for story in stories for text in story.violations)


def test_the_command_plays_features(capsys: pytest.CaptureFixture[str]) -> None:
    """It sums up what features did, plays only some of them, and refuses what it does not know."""
    assert 0 == simulate.main(["--seeds", "5", "--features"])
    assert "what features did" in capsys.readouterr().out
    assert 0 == simulate.main(["--seed", "3", "--features", "unique,batch"])
    with pytest.raises(SystemExit):
        simulate.main(["--seed", "3", "--features", "nothing"])
    assert "'nothing' is none of unique, batch" in capsys.readouterr().err


def test_the_command_says_how_to_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed with a violation is told with the features it was played with."""
    broken_features.ignores_a_parent(monkeypatch)

    assert 1 == simulate.main(["--seeds", "50", "--features", "flow"])
    assert capsys.readouterr().out.rstrip().endswith("--features flow")
