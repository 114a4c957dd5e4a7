"""From a seed to what happened in its world."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from goose.testing.simulator.features.world import FeatureWorld
from goose.testing.simulator.scenario import Scenario
from goose.testing.simulator.world import Story, World


def play(seed: int, scenario: Scenario | None = None, *, trace: bool = False) -> Story:
    """Play the world of that seed, to its end or to its first violation.

    Args:
        seed: Decides everything that is left to chance.
        scenario: What kind of world.
        trace: Whether to write down what happens; the same happens with and without.
    """
    scenario = scenario or Scenario()
    kind = FeatureWorld if scenario.features else World
    with _quiet_log():
        return kind(seed, scenario, trace=trace).run()


@contextmanager
def _quiet_log() -> Iterator[None]:
    logger = logging.getLogger("goose")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
