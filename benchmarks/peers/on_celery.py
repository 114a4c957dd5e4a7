"""Celery: results, events and remote control off, and many prefetched."""

import os

import jobs
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
if os.environ.get("BENCH_CONFIRM"):
    app.conf.broker_transport_options = {"confirm_publish": True}
if os.environ.get("BENCH_QUORUM"):
    app.conf.task_default_queue_type = "quorum"
noop = app.task(name="noop")(jobs.noop)
stamp = app.task(name="stamp")(jobs.stamp)
nap = app.task(name="nap")(jobs.thread_nap)

if __name__ == "__main__":
    import produce

    tasks = {"noop": noop, "stamp": stamp, "nap": nap}
    produce.main(lambda kind, place: tasks[kind].delay(place))
