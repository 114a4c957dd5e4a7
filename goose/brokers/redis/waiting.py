"""Alarms: how another thread ends the sleep of one that waits for the server.

An idle worker sleeps in a BLPOP on the wake lists of its queues. The thread waits for the
socket and for a pipe of its own, so that `Alarm.ring` ends the sleep without the network,
which may just be what fails.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
import uuid
from collections.abc import Sequence


class Alarm:
    """Wakes one sleeping thread. `ring` may be called by any."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        """Under which the server knows the sleeper."""
        self.registered = False
        """Whether the server holds it for asleep."""
        self.place: object = None
        """Where it is asleep; None if that is not certain."""
        self.due_mono = math.inf
        """When a job is due there, as far as the last look saw."""
        self._until_mono = 0.0
        self.rung = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def falls_asleep(self, place: object, seconds: float, due_in: float | None) -> None:
        """Note that a look at *place* found nothing, and the server holds it for asleep now.

        Args:
            place: Where.
            seconds: For how long.
            due_in: Seconds until a job is due there.
        """
        now = time.monotonic()
        self.registered = True
        self.place = place
        self.due_mono = math.inf if due_in is None else now + due_in
        self._until_mono = now + seconds

    def wakes_up(self) -> None:
        """Note that the server no longer holds it for asleep."""
        self.registered = False
        self.place = None

    def sleeps(self, place: object, seconds: float) -> bool:
        """Say whether the server holds it for asleep at *place*, and will for *seconds*."""
        return self.place == place and time.monotonic() + seconds <= self._until_mono

    def ring(self) -> None:
        """End the sleep of now, or the next one."""
        self.rung = True
        with contextlib.suppress(BlockingIOError):  # it is full of rings
            os.write(self._write, b"!")

    def wait(self, descriptors: Sequence[int], seconds: float) -> list[int]:
        """Sleep until one of *descriptors* can be read, it rings, or *seconds* are over.

        Returns:
            Those that can be read; none if it rang.
        """
        poller = select.poll()
        for descriptor in (*descriptors, self._read):
            poller.register(descriptor, select.POLLIN)
        ready = [found for found, _ in poller.poll(max(0.0, seconds) * 1000)]
        return [] if self.rung else [found for found in ready if found != self._read]

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._read)
        os.close(self._write)


class Alarms:
    """The alarms of one broker object. Thread-safe; begins anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asleep: list[Alarm] = []
        self._spare: list[Alarm] = []
        self._pending = False
        self._process = os.getpid()

    def take(self) -> Alarm | None:
        """Return an alarm for a sleep to come; None if a ring waits, which is used up by this."""
        self._check_process()
        with self._lock:
            if self._pending:
                self._pending = False
                return None
            alarm = self._spare.pop() if self._spare else Alarm()
            self._asleep.append(alarm)
            return alarm

    def answer(self) -> bool:
        """Use up a ring that waits; return whether there was one."""
        pending, self._pending = self._pending, False
        return pending

    def give(self, alarm: Alarm) -> None:
        """Take back an alarm."""
        with self._lock:
            self._asleep.remove(alarm)
            if alarm.rung:
                alarm.close()
            else:
                self._spare.append(alarm)

    def ring(self) -> None:
        """Wake all that sleep, or whoever would sleep next."""
        self._check_process()
        with self._lock:
            for alarm in self._asleep:
                alarm.ring()
            self._pending = not self._asleep

    def close(self) -> None:
        """Let go of what nobody uses."""
        with self._lock:
            while self._spare:
                self._spare.pop().close()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            # The pipes are shared with the parent, whose sleepers are not ours to wake.
            self._lock = threading.Lock()
            inherited = self._asleep + self._spare
            self._asleep, self._spare, self._pending = [], [], False
            self._process = os.getpid()
            for alarm in inherited:
                alarm.close()
