"""Keeps a number of child processes at work, whatever happens to them.

A supervisor has one *post* per process it is to run. A post holds a `Charge`; when its
charge dies or leaves, the post gets another, at once the first time and after a growing
pause when it dies again and again. Charges that leave or are dead are looked after until
nothing is left of them, beside their successors.

The supervisor ends

* when it was told to (`interrupt`): first gently, a second time at once;
* when every child found nothing left to do, if the children look for that;
* when it cannot begin: no broker within the time given, a module that cannot be imported,
  a wrong setting. Once a child has been ready it never ends for such a reason again: brokers
  come back, and deployments get repaired.

How many posts there are may be changed by an order, of which children tell (`Ordered`). The
posts with the highest numbers go, so that the first, which does what one does for all, stays.
How it could go wrong, and why it does not:

* What runs on a post that goes is lost, or runs twice: its charge stops as all do at the end,
  with the grace, and is looked after until nothing is left of it, its death and its aftermath too.
* A child crashes, is replaced or cannot read the orders: nobody said otherwise, so the number
  stays. Several say the same: that is the number already.
* One says what others know to be old: each tells right after it has read, so only one that was held
  up in between does. What it reads next is news to it, and told at once; who leaves is not heard,
  for it may not read again; and all repeat what they read every few seconds.
* The child with the last jobs goes while those that stay had found nothing left (until-empty), or
  wait after a crash: they look again, at once. While it drains they may find nothing once more, for
  not every broker counts what runs: they look again when it is gone and has given back what it held.
* A post comes back before its last charge has ended: that one has made way, as for any successor.
* A child that is told to go before it was ready: it counts as a beginning only if it was.
* Orders come while all of it ends: who is told to stop leaves, and is not heard.

All of it happens in `Supervisor.step`, which never blocks and never raises; a loop around
it supplies time, signals and a reason to look (`goose.worker.host`).
"""

from __future__ import annotations

import logging
import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from goose.errors import BrokerError, BrokerUnavailable, ConfigError
from goose.worker.aftermath import Cause
from goose.worker.charge import Charge, Phase
from goose.worker.control import Count, Ordered
from goose.worker.plan import Plan, Tools

logger = logging.getLogger("goose.worker.supervisor")

OK, FAILURE, BROKER = 0, 1, 4
"""Exit codes that are decided here; children decide on 2 (settings) and 3 (modules)."""
RESTART_FIRST = 0.5
"""Seconds before the second replacement in a row; doubles with each further one."""
SETTLED = 5.0
"""Seconds a child must have worked for its death to count as the first again. Deaths as rare
as that are not a loop, and to restart at once costs a few percent of one core."""
FALSE_STARTS = 3
"""Deaths of one post's children after which the supervisor gives up, if none was ever ready."""
LAST_SLACK = 4.0
"""Seconds beyond the grace after which the supervisor ends, whatever is left undone."""


@dataclass(slots=True)
class Post:
    """A place for one child."""

    index: int
    charge: Charge | None = None
    deaths: int = 0
    """In a row."""
    not_before: float = -math.inf
    """Monotonic instant of the next replacement."""
    finished: bool = False
    """Nothing is left to do for it."""


class Supervisor:
    """Starts, watches, replaces and ends children; `step` it until it returns an exit code."""

    def __init__(self, plan: Plan, tools: Tools) -> None:
        self._plan = plan
        self._tools = tools
        self._posts = [Post(index) for index in range(plan.processes)]
        self._charges: list[Charge] = []
        self._began_at: float | None = None
        self._succeeded = False
        self._exit_code = OK
        self._stop_by = math.inf
        self._stopping = False
        self._log_level: str | None = None
        self._signals: list[int] = []
        self._tally: Counter[tuple[str, str, str]] = Counter()

    @property
    def charges(self) -> list[Charge]:
        """Everything it looks after at the moment."""
        return list(self._charges)

    @property
    def stopping(self) -> bool:
        """Whether it is coming to its end."""
        return self._stopping

    def dump(self) -> None:
        """Have every running job logged, with its stack."""
        for charge in self._charges:
            charge.dump()

    def tell_gauges(self, gauges: Sequence[tuple[str, float, Mapping[str, str]]]) -> None:
        """Hand gauges of all children together to one of them: it has the metrics."""
        any(charge.count(Count((), gauges)) for charge in self._charges)

    def interrupt(self, signum: int) -> None:
        """Pass on a signal; the next `step` obeys it."""
        self._signals.append(signum)

    def step(self, now: float) -> int | None:
        """Do what there is to do at *now* (monotonic).

        Returns:
            The exit code once the supervisor is done; then no child lives any more, or is
            about to be killed by `kill`.
        """
        if self._began_at is None:
            self._began_at = now
        code = self._obey(now)
        if code is not None:
            return code
        for charge in self._charges:
            charge.step(now)
            # Also of one that will have no post any more.
            self._succeeded = self._succeeded or charge.ready_at is not None
        # Only then it is known who leaves.
        for charge in self._charges:
            ordered, charge.ordered = charge.ordered, None
            if ordered is not None and not charge.leaving:
                self._follow(ordered, now)
        self._look_again()
        for post in self._posts:
            self._attend(post, now)
        for charge in self._charges:
            if charge.phase is Phase.GONE:
                self._tally.update(charge.tally)
                for (name, tag, value), count in charge.tally.items():
                    self._tools.witness.count(name, count, {tag: value})
        self._charges = [charge for charge in self._charges if charge.phase is not Phase.GONE]
        self._report()
        if not self._charges and (self._stopping or all(post.finished for post in self._posts)):
            return self._exit_code
        if now >= self._stop_by:
            logger.error("what ran could not be given back; other workers will take it over")
            return self._exit_code or FAILURE
        return None

    def kill(self, now: float) -> None:
        """Kill every child there is."""
        for charge in self._charges:
            charge.kill(now, Cause.LEFT)

    def _report(self) -> None:
        """Hand what was counted to a child: it has the metrics."""
        if self._tally:
            increments = [(name, n, {tag: value}) for (name, tag, value), n in self._tally.items()]
            if any(charge.count(Count(increments)) for charge in self._charges):
                self._tally.clear()

    def _obey(self, now: float) -> int | None:
        signals, self._signals = self._signals, []
        for signum in signals:
            name = signal.Signals(signum).name
            if self._stopping:
                logger.warning("%s again: ending at once", name)
                self.kill(now)
                return 128 + signum
            logger.info(
                "%s: stopping, up to %g s for what runs; once more ends it at once",
                name, self._plan.grace,
            )  # fmt: skip
            self._stop(now, self._plan.grace)
        return None

    def _stop(self, now: float, grace: float) -> None:
        self._stopping = True
        self._stop_by = now + grace + LAST_SLACK
        for charge in self._charges:
            charge.stop(now, grace)

    def _give_up(self, now: float, code: int) -> None:
        if not self._stopping:
            self._exit_code = code
            self._stop(now, 0.0)

    # --- orders --------------------------------------------------------------------------

    def _follow(self, ordered: Ordered, now: float) -> None:
        if ordered.log_level != self._log_level:
            self._log_level = ordered.log_level
            self._tools.log_by(ordered.log_level)
            if ordered.log_level is None:
                logger.info("logging as at the start again")
            else:
                logger.info("logging %s and above by order", ordered.log_level)
        self._resize(ordered.processes or self._plan.processes, now)

    def _resize(self, count: int, now: float) -> None:
        before = len(self._posts)
        if count == before:
            return
        logger.info("worker processes by order: %d instead of %d", count, before)
        surplus = self._posts[count:]
        self._posts = [*self._posts[:count], *(Post(index) for index in range(before, count))]
        for post in surplus:
            # One that leaves already is in nobody's way, and has its own time.
            if post.charge is not None and not post.charge.leaving:
                post.charge.stop(now, self._plan.grace, make_way=True)
        if not all(post.finished for post in surplus):
            # Whoever stays has to do their work: also who had found none, or waits after a crash.
            for post in self._posts:
                post.finished = False
                post.not_before = -math.inf

    # --- posts ---------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Let no post be finished if one is gone that left with jobs: they may be ready again."""
        # Where the broker cannot count what runs, the others found nothing while it ran them.
        for charge in self._charges:
            nothing_left = charge.empty and charge.ended_well
            if charge.phase is Phase.GONE and charge.leaving and not nothing_left:
                for post in self._posts:
                    post.finished = False

    def _attend(self, post: Post, now: float) -> None:
        charge = post.charge
        if charge is not None:
            self._judge_beginning(charge, now)
            if charge.alive and not charge.leaving:
                return
            self._vacate(post, charge, now)
        vacant = post.charge is None and not post.finished
        if vacant and not self._stopping and now >= post.not_before:
            post.charge = Charge(post.index, self._plan, self._tools)
            self._charges.append(post.charge)
            post.charge.step(now)

    def _judge_beginning(self, charge: Charge, now: float) -> None:
        """End the supervisor if the broker cannot be had at the start."""
        error = charge.open_error
        if self._succeeded or error is None or self._began_at is None:
            return
        refused = isinstance(error, BrokerError) and not isinstance(error, BrokerUnavailable)
        if refused or isinstance(error, ConfigError):  # waiting would not mend it
            logger.error("the broker refuses: %s", error)
        elif now - self._began_at >= self._plan.wait_broker:
            logger.error("no broker for %g s: %s", self._plan.wait_broker, error)
        else:
            return
        self._give_up(now, BROKER)

    def _vacate(self, post: Post, charge: Charge, now: float) -> None:
        """Take *charge*, which is dead or leaving, from its post, and decide what follows."""
        if charge.empty:
            # Not before it has ended: it may die yet, and then its jobs need somebody.
            if charge.alive:
                return
            post.finished = charge.ended_well
        post.charge = None
        if post.finished or (charge.leaving and charge.fatal is None):
            return
        worked = 0.0 if charge.ready_at is None else now - charge.ready_at
        post.deaths = 1 if worked >= SETTLED else post.deaths + 1
        post.not_before = now + self._pause(post.deaths)
        if not self._succeeded and not self._stopping:
            self._judge_false_start(post, charge, now)

    def _judge_false_start(self, post: Post, charge: Charge, now: float) -> None:
        assert self._began_at is not None
        fatal = charge.fatal
        if fatal is None:
            if post.deaths >= FALSE_STARTS:
                logger.error("worker processes die before they are ready; giving up")
                self._give_up(now, FAILURE)
        elif fatal.exit_code != BROKER or now - self._began_at >= self._plan.wait_broker:
            self._give_up(now, fatal.exit_code)

    def _pause(self, deaths: int) -> float:
        """Return the seconds before the replacement after so many *deaths* in a row."""
        if deaths <= 1:
            return 0.0
        return min(RESTART_FIRST * 2.0 ** min(deaths - 2, 20), self._plan.restart_limit)
