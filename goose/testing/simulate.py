"""``python -m goose.testing.simulate``: plays worlds, and shows the one that went wrong.

    --seeds N       plays seeds 0 to N-1 (from --first on)
    --seed N        plays one seed and prints all that happens in it
    --features      plays worlds whose jobs use features; --features unique,batch only these
    --processes N   plays on so many cores

Exits with 1 if a world had a violation, after printing its story and how to replay it.
"""

# ruff: noqa: T201 - a command talks to a terminal

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context

from goose.testing.simulator import Scenario, Story, play
from goose.testing.simulator.scenario import FEATURES

CHUNK = 50
"""Worlds a process plays before it reports."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m goose.testing.simulate")
    parser.add_argument("--seed", type=int, help="play this one and print its story")
    parser.add_argument("--seeds", type=int, default=2000, help="how many to play (2000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--processes", type=int, default=1, help="cores to use (1)")
    parser.add_argument(
        "--features", nargs="?", const=FEATURES, type=_features, help="what jobs use (nothing)"
    )
    given = parser.parse_args(arguments)
    scenario = Scenario(features=given.features) if given.features else Scenario()
    if given.seed is not None:
        return tell(given.seed, scenario)
    started = time.monotonic()
    total = Total()
    seeds = range(given.first, given.first + given.seeds)
    for story in play_many(seeds, scenario, processes=given.processes):
        total.add(story)
        if story.violations:
            tell(story.seed, scenario)
            return 1
    total.print(time.monotonic() - started)
    return 0


def _features(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in FEATURES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FEATURES)}")
    return names


def play_many(
    seeds: Sequence[int], scenario: Scenario | None = None, *, processes: int = 1
) -> Iterator[Story]:
    """Play the worlds of *seeds*, in order, on so many cores; yield their stories."""
    if processes <= 1:
        yield from (play(seed, scenario) for seed in seeds)
        return
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    # Fresh processes: a fork would copy whatever threads the caller has.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for stories in pool.map(_play_all, chunks, repeat(scenario)):
            yield from stories


def _play_all(seeds: Iterable[int], scenario: Scenario | None) -> list[Story]:
    return [play(seed, scenario) for seed in seeds]


def tell(seed: int, scenario: Scenario | None = None) -> int:
    """Print the story of one world; return 1 if it has a violation."""
    story = play(seed, scenario, trace=True)
    print("\n".join(story.trace))
    print()
    for violation in story.violations:
        print(f"VIOLATION at {violation}")
    if story.violations:
        features = (
            f" --features {','.join(scenario.features)}" if scenario and scenario.features else ""
        )
        print(f"replay: python -m goose.testing.simulate --seed {seed}{features}")
    else:
        print(f"seed {seed}: no violation")
    return int(bool(story.violations))


class Total:
    """Sums over many worlds."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.overlapped: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()

    def add(self, story: Story) -> None:
        """Add one."""
        self.injected.update(story.injected)
        self.overlapped.update(story.overlapped)
        self.seen.update(story.seen)
        self.numbers.update(
            worlds=1,
            runs=story.runs,
            duplicates=story.duplicates,
            calls=story.calls,
            seconds=round(story.seconds),
        )

    def print(self, seconds: float) -> None:
        """Show them."""
        print(f"{'fault':36} {'injected':>9} {'with jobs in flight':>20}")
        for kind, count in sorted(self.injected.items()):
            print(f"{kind:36} {count:9,} {self.overlapped[kind]:20,}")
        if self.seen:
            print(f"\n{'what features did':46} {'times':>9}")
        for kind, count in sorted(self.seen.items()):
            print(f"{kind:46} {count:9,}")
        numbers = self.numbers
        print(
            f"\n{numbers['worlds']:,} worlds in {seconds:.0f} s: {numbers['runs']:,} runs in "
            f"{numbers['seconds'] / 3600:,.0f} virtual hours, {numbers['calls']:,} calls to the "
            f"broker, {numbers['duplicates']:,} jobs run again after a fault, no violation"
        )


if __name__ == "__main__":
    sys.exit(main())
