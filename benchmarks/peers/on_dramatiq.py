"""Dramatiq: default middleware, and as many prefetched as were best."""

import os

import dramatiq
import jobs
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
noop = dramatiq.actor(jobs.noop)
stamp = dramatiq.actor(jobs.stamp)
nap = dramatiq.actor(jobs.thread_nap)

if __name__ == "__main__":
    import produce

    actors = {"noop": noop, "stamp": stamp, "nap": nap}
    produce.main(lambda kind, place: actors[kind].send(place))
