"""Virtual time, and actors that take turns in it.

An actor stands for one thread: it does one thing at a time. What is due for an actor that is
in the middle of something, or whose process is paused, waits until it is free.

An action may let time pass in its own middle (`Timeline.wait`): everybody else goes on as if
that thread had been scheduled out there, or, with its process paused, as if the whole process
had been. So two calls of one step can have anything between them, and there is still only one
real thread. Waits nest: one that began inside of another ends before it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

Action = Callable[[], None]

DEEPEST = 4
"""Waits inside of waits; beyond it actions do not wait."""
LAG = 3.0
"""Seconds after a pause within which the last thread is on its feet again."""


class Died(BaseException):
    """The process that called was ended in the middle of its call."""


class Place:
    """What actors belong to: they pause and die together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.pauses = 0
        """Reasons to stand still; 0 means that it runs."""
        self.actors: list[Actor] = []


class Actor:
    """One thread of a place; see the module."""

    __slots__ = ("busy", "place", "waiting")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.busy = False
        self.waiting: list[Action] = []
        place.actors.append(self)


class Timeline:
    """Calls what is due, in order of time and then of request."""

    def __init__(self, random: random.Random) -> None:
        self.now = 0.0
        self.current: Actor | None = None
        """Whose action is under way."""
        self._depth = 0
        self._random = random
        self._order = 0
        self._agenda: list[tuple[float, int, Actor, Action]] = []

    def at(self, when: float, actor: Actor, action: Action) -> None:
        """Have *actor* do *action* at *when*, or as soon as it can after that."""
        self._order += 1
        heapq.heappush(self._agenda, (max(when, self.now), self._order, actor, action))

    def run(self, until: float, stop: Callable[[], bool]) -> bool:
        """Go on until *stop* says so; say whether it did before *until*."""
        while self._agenda and self._agenda[0][0] < until:
            self._next()
            if stop():
                return True
        self.now = max(self.now, until)
        return False

    def wait(self, seconds: float, actor: Actor, *, pause: bool = False) -> None:
        """Let *seconds* pass while *actor*, or with *pause* its whole place, stands still.

        Raises:
            Died: The place was ended meanwhile.
        """
        place = actor.place
        end = self.now + seconds
        self._depth += 1
        if pause:
            place.pauses += 1
        while self._agenda and self._agenda[0][0] < end:
            self._next()
        self.now = max(self.now, end)
        self._depth -= 1
        if pause:
            self.resume(place)
        # Paused meanwhile from outside, and that will end from outside.
        while place.pauses and place.alive:
            self._next()
        if not place.alive:
            raise Died

    @property
    def may_wait(self) -> bool:
        """Whether an action may wait now."""
        return self._depth < DEEPEST

    def resume(self, place: Place) -> None:
        """End one pause of *place*; with the last its actors go on."""
        place.pauses -= 1
        if place.pauses:
            return
        for actor in place.actors:
            if not actor.busy:
                self._free(actor, self._random.uniform(0.0, LAG))

    def _next(self) -> None:
        when, _, actor, action = heapq.heappop(self._agenda)
        self.now = max(self.now, when)
        place = actor.place
        if not place.alive:
            return
        if actor.busy or place.pauses:
            actor.waiting.append(action)
            return
        before, self.current = self.current, actor
        actor.busy = True
        try:
            action()
        except Died:
            return
        finally:
            actor.busy = False
            self.current = before
        if actor.waiting:
            self._free(actor, 0.0)

    def _free(self, actor: Actor, lag: float) -> None:
        waiting, actor.waiting = actor.waiting, []
        for action in waiting:
            self.at(self.now + lag, actor, action)
