"""Worlds whose jobs use features: uniqueness, batches, flows, limits, cron, results, orders, checkpoints.

The engine, the timeline, the faults and the checker of jobs are those of every world. New is a
store with the same clock, reached through the same wires, so that each call to it can fail, crash or
stand still as one to the broker can; and clients that may die, since features begin with them.

* `world` puts them together, and at the end asks for what may be stuck.
* `wire` has the store and shows jobs, `worker` has the steps that features need, `ordered` that for
  orders.
* `callers` are client processes; they carry out `Task`s, and what fails is tried again.
* `ledger` follows jobs, as its base does, and tells the acts of them.
* `acts` says what an `Act` is: one feature's part in a world, what is asked for and what must hold.
  `uniques`, `batches`, `flows`, `limits`, `rates`, `crons`, `unique_crons`, `results`, `debounces`,
  `throttles`, `controls`, `longs`, `cancelled_batches` and `cancelled_flows` are those that there are; `calls`
  and `operators` have tasks of some, `cancels` has what holds of every job that is cancelled.

The features themselves are the product's own; nothing of them is imitated here.
"""
