"""Dramatiq on Redis or RabbitMQ: default middleware, and as many prefetched as were best."""

import os

import dramatiq
import jobs

URL = os.environ["BENCH_URL"]
if URL.startswith("amqp"):
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    dramatiq.set_broker(RabbitmqBroker(url=URL, confirm_delivery=bool(os.environ["BENCH_CONFIRM"])))
else:
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))
noop = dramatiq.actor(jobs.noop)
stamp = dramatiq.actor(jobs.stamp)
nap = dramatiq.actor(jobs.thread_nap)

if __name__ == "__main__":
    import produce

    actors = {"noop": noop, "stamp": stamp, "nap": nap}
    produce.main(lambda kind, place: actors[kind].send(place))
