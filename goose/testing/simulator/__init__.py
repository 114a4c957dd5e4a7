"""The real engine in an unreal world: virtual time, chosen faults, one thread, one seed.

A `World` holds one memory broker, several worker processes and a client. The processes are
made of the engine's own steps (`goose.worker.engine.Engine`); what is simulated is only what
surrounds them: time, threads, the network, the supervisor, and death. A seed decides all of
it, so that a seed that fails, fails again.

* `timeline` owns time: it calls what is due, and lets a step stand still in the middle.
* `faults` decides what goes wrong in a call.
* `wire` stands between a process and the broker, and is where those faults happen.
* `process` is one worker process: the engine, its threads as actors, its end; `slots` are where its
  jobs run, and `supervisor` is what follows its death.
* `functions` are the jobs' functions, `script` says what each job does when it runs.
* `ledger` is the checker: it follows every job from outside, and knows what may not be.
* `world` puts them together, lets the faults end, and waits for everything to drain; `scenario`
  says how large and how stormy it is.
* `features` has worlds whose jobs use features, with a store and clients that die.

Run ``python -m goose.testing.simulate --seeds 1000``, or call `play` with a seed.
"""

from goose.testing.simulator.playing import play
from goose.testing.simulator.scenario import Scenario
from goose.testing.simulator.world import Story

__all__ = ["Scenario", "Story", "play"]
