"""What survivors say of jobs whose worker died, and how long to wait for it.

The server lends a dead client's jobs to the next one by itself and at once, with nothing but a
flag that says "redelivered": not why, and not whether the job was ever started. Who knows is
the dead process's supervisor. So it says what it saw, through an exchange that every worker
listens to, and says it again every half second for two minutes, for workers that start later;
and a job that is lent again waits in quarantine, for a second or two, for such a word. If none
comes, nobody holds anything against it.

Who gives jobs back unstarted says so too, once, so that nobody has to wait. Each word about a
death has an id, and the ids of those that were heeded travel with the job from then on: a word is
heeded once, however often it is said again and whatever is said of other deaths meanwhile.

Where no supervisor survives, nobody speaks. A job that was lent again very often without any
word is at last suspected, and runs alone and ever more rarely, but it is never condemned.
Source: docs/adr/0010-blame-on-rabbitmq.md.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

HEADER = "goose-words"
"""The header with the ids of the words that were heeded, the last ones, with blanks between."""
HEEDED = 50
"""Ids in that header: more deaths than one job causes while words are remembered, as it waits longer each time."""
COUNT = "x-delivery-count"
"""The header in which the server counts how often it lent a job again."""
UNSTARTED = "unstarted"
SUSPECT = "suspect"
UNEXPLAINED = 20
"""Times a job may be lent again, without a word about it, before it is suspected."""
REPEAT = 0.5
"""Seconds between repetitions of a word."""
REPEATED_FOR = 120.0
"""Seconds: longer than any pause before a dead process is replaced."""
KEPT_FOR = 600.0
"""Seconds a word is remembered."""
FRESH = 3.0
"""Seconds for which a job that was given back may come without being asked why."""
MOST = 100_000
"""Jobs of which words are remembered."""
MOST_OF_ONE = 8
"""Words remembered of one job."""
ID_BYTES = 200
"""Bytes of a job's id that survivors know."""
_WORD_BYTES = 8
"""Of a word's id: random, so that a job never meets two with the same."""
_WORD = re.compile(r"[0-9a-z-]{1,64}")
_GRAVITY = {SUSPECT: 0, "ended": 1}
"""How grave a verdict is; others are graver."""


def short(job_id: str) -> str:
    """Return the part of an id that words go by."""
    raw = job_id.encode("utf-8", "replace")
    return job_id if len(raw) <= ID_BYTES else raw[:ID_BYTES].decode("utf-8", "replace")


@dataclass(slots=True)
class Word:
    """What is said of one job; without an id by who gave it back."""

    id: str
    verdict: str
    heard_mono: float
    spent: bool = False
    """Whether it has excused a return."""


class Heeded(NamedTuple):
    """What comes of the words about a job."""

    verdict: str
    words: str
    """For its header: they are not heeded again."""


def spoken(word: str, verdicts: Mapping[str, str]) -> bytes:
    """Return the message that says it."""
    return json.dumps({"word": word, "verdicts": dict(verdicts)}).encode()


class Hearsay:
    """Words heard, by job. For one thread at a time."""

    def __init__(self) -> None:
        self._words: dict[str, list[Word]] = {}

    def hear(self, body: bytes) -> bool:
        """Remember what a message says; say whether it said anything."""
        try:
            said = json.loads(body)
            word, verdicts = str(said["word"]), said["verdicts"]
            pairs = [(str(job), str(verdict)) for job, verdict in verdicts.items()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False  # whoever may write to the server may say anything
        if word and not _WORD.fullmatch(word):
            return False
        if not word:  # then it could be heeded again and again
            pairs = [(job, verdict) for job, verdict in pairs if verdict == UNSTARTED]
        self._note(word, pairs)
        return True

    def given_back(self, job_ids: Iterable[str]) -> None:
        """Remember that these were given back by ourselves."""
        self._note("", [(short(job_id), UNSTARTED) for job_id in job_ids])

    def _note(self, word: str, pairs: Iterable[tuple[str, str]]) -> None:
        now = time.monotonic()
        for job, verdict in pairs:
            said = self._words.pop(job, [])  # so that the latest stand last
            if not word or word not in [known.id for known in said]:
                # The latest excuse takes the place of earlier ones.
                said = [known for known in said if known.id or word]
                said = [*said[1 - MOST_OF_ONE :], Word(word, verdict, now)]
            self._words[job] = said
        while self._words:
            oldest = next(iter(self._words))
            if len(self._words) <= MOST and now - self._words[oldest][-1].heard_mono < KEPT_FOR:
                break
            del self._words[oldest]

    def about(self, job_id: str, header: object) -> Heeded | None:
        """Return what is said of a job that was lent again, unless that was heeded before.

        Of several deaths, all are heeded, and the gravest is what comes of it. An excuse is for one return.

        Args:
            job_id: The job's.
            header: What its header says was heeded.
        """
        key = short(job_id)
        said = self._words.get(key)
        if not said:
            return None
        before = _WORD.findall(str(header or ""))
        new = [word for word in said if not word.spent and word.id not in before]
        deaths = [word for word in new if word.verdict != UNSTARTED]
        if deaths:
            words = [*before, *[word.id for word in deaths]]
            gravest = max(deaths, key=lambda word: _GRAVITY.get(word.verdict, len(_GRAVITY)))
            return Heeded(gravest.verdict, " ".join(words[-HEEDED:]))
        oldest = time.monotonic() - FRESH
        for excuse in new:
            excuse.spent = True
        return Heeded(UNSTARTED, "") if any(w.heard_mono > oldest for w in new) else None


class Testimony:
    """What this process has to say, until everybody must have heard it. For one thread."""

    def __init__(self) -> None:
        self._sayings: list[tuple[float, bytes]] = []

    def add(self, verdicts: Mapping[str, str]) -> None:
        """Say this from now on."""
        until = time.monotonic() + REPEATED_FOR
        self._sayings.append((until, spoken(secrets.token_hex(_WORD_BYTES), verdicts)))

    def sayings(self) -> list[bytes]:
        """Return what is to be said now."""
        now = time.monotonic()
        self._sayings = [saying for saying in self._sayings if saying[0] > now]
        return [body for _, body in self._sayings]


def count_of(headers: Mapping[str, Any] | None) -> int:
    """Return how often the server says that it lent a job again."""
    count = headers.get(COUNT) if headers else None
    return count if isinstance(count, int) else 0
