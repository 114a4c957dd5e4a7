"""huey: a blocking pop, and nothing kept of results."""

import os

import jobs
from huey import RedisHuey
from redis import ConnectionPool

# A worker thread holds a connection; redis-py's own limit is too low for 200 of them.
pool = ConnectionPool.from_url(os.environ["BENCH_URL"], max_connections=1000)
huey = RedisHuey("bench", connection_pool=pool, results=False, blocking=True)
noop = huey.task()(jobs.noop)
stamp = huey.task()(jobs.stamp)
nap = huey.task()(jobs.thread_nap)

if __name__ == "__main__":
    import produce

    tasks = {"noop": noop, "stamp": stamp, "nap": nap}
    produce.main(lambda kind, place: tasks[kind](place))
