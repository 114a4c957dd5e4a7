"""A user's program for type checkers: never run, only read by mypy and pyright.

Each line that ends in a comment ``# mistake`` holds a deliberate mistake, and both checkers
must report exactly those lines.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import assert_type

import goose
from goose import aio


def add(a: int, b: int = 0) -> int:
    return a + b


@goose.job(queue="mail", retry=goose.Retry(max_retries=5), timeout=timedelta(seconds=30))
def send_email(to: str, *, subject: str, queue: str = "") -> None: ...


def size(data: bytes) -> int:
    return len(data)


@goose.job()
async def fetch(url: str) -> bytes:
    return url.encode()


# --- what is right --------------------------------------------------------------------------

assert_type(goose.enqueue(add, 1), goose.Job[int])
assert_type(goose.enqueue(add, 1, b=2), goose.Job[int])
assert_type(goose.enqueue(fetch, "https://example.com"), goose.Job[bytes])
assert_type(goose.enqueue_in(300, add, 1), goose.Job[int])
assert_type(goose.enqueue_in(timedelta(minutes=5), fetch, "x"), goose.Job[bytes])
assert_type(goose.enqueue_at(datetime.now(UTC), add, 1), goose.Job[int])
assert_type(goose.enqueue_at(datetime.now(UTC), fetch, "x"), goose.Job[bytes])
assert_type(goose.enqueue_many(add, [(1,), goose.call(add, 2)]), list[goose.Job[int]])
assert_type(goose.enqueue_many(fetch, [("x",), goose.call(fetch, "y")]), list[goose.Job[bytes]])
assert_type(goose.call(add, 1), goose.Call[int])
assert_type(goose.call(fetch, "x"), goose.Call[bytes])

goose.enqueue(send_email, "ada@example.com", subject="Hi", queue="the function's own")
assert_type(send_email("ada@example.com", subject="Hi"), None)

mail = goose.using(queue="mail", retry=goose.Retry(max_retries=5), timeout=math.inf)
assert_type(goose.using(retry=5, timeout="5m"), goose.Client)
assert_type(mail, goose.Client)
assert_type(mail.using(broker="redis://eu").enqueue(add, 1), goose.Job[int])
assert_type(mail.enqueue(fetch, "x"), goose.Job[bytes])

cron = goose.using(timezone="Europe/Berlin", catch_up="skip").cron("name", "@daily", add, 1, b=2)
assert_type(cron.next_due, datetime | None)

with goose.batch(name="letters", on_success=goose.call(add, 1, 2)) as batch:
    assert_type(batch.enqueue(add, 1), goose.Job[int])
    assert_type(batch.using(queue="mail").enqueue(fetch, "x"), goose.Job[bytes])
    assert_type(batch.progress().done, int)
    batch.enqueue_batch(add, [(1,), (2,)])

job = goose.enqueue(add, 1)
assert_type(job.id, str)

assert_type(job.result(5), int)
assert_type(job.output, int)
assert_type(goose.enqueue(add, job.output), goose.Job[int])
assert_type(goose.using(result=60, depends_on=[job, "id"]).enqueue(fetch, "x").output, bytes)
assert_type(goose.chain(goose.call(add, 1), add), goose.Job[int])
assert_type(goose.chain(goose.call(fetch, "x"), size, add), goose.Job[int])
with goose.flow() as flow:
    first = flow.add(add, 1)
    assert_type(flow.using(depends_on=goose.after(first)).add(add, first.output), goose.Job[int])
    keys = [
        goose.after(add, unique="k"),
        goose.after(goose.call(add, 1), unique=True, on_failure="run"),
    ]
    assert_type(flow.using(depends_on=[first, *keys]).add(add, 2), goose.Job[int])

goose.configure(broker="redis://localhost:6379/0", queues=["mail", "default"], ttl=30)

try:
    with goose.Client("redis://localhost", queue="mail") as client:
        client.enqueue(add, 1)
except goose.EnqueueError as error:
    mail.submit(error.jobs)
    mail.submit([job])


async def main() -> None:
    assert_type(await goose.aio.enqueue(add, 1), goose.Job[int])
    assert_type(await aio.enqueue(fetch, "x"), goose.Job[bytes])
    assert_type(await aio.enqueue_in(5, fetch, "x"), goose.Job[bytes])
    assert_type(await aio.enqueue_many(add, [(1,)]), list[goose.Job[int]])
    assert_type(await aio.using(queue="q").enqueue(add, 1), goose.Job[int])
    assert_type(await mail.aio.enqueue(add, 1), goose.Job[int])
    async with goose.aio.batch(on_complete=add) as batch:
        assert_type(await batch.enqueue(add, 1), goose.Job[int])
    assert_type(await job.aresult(5), int)
    async with aio.flow() as flow:
        assert_type(flow.add(add, flow.add(add, 1).output), goose.Job[int])
    await aio.using(catch_up="all").cron("name", "@daily", fetch, "x")


@contextmanager
def tenant(execution: goose.Execution) -> Generator[None, None, None]:
    assert_type(execution.job.id, str)
    yield


def inside() -> None:
    execution = goose.current()
    assert_type(execution.deadline, datetime | None)
    raise goose.Postpone(30)


# --- what is wrong --------------------------------------------------------------------------

goose.enqueue(add)  # mistake: an argument is missing
goose.enqueue(add, "1")  # mistake: it has the wrong type
goose.enqueue(add, 1, c=2)  # mistake: there is no such parameter
goose.enqueue(send_email, "ada@example.com")  # mistake: a required keyword is missing
goose.enqueue(send_email, "ada@example.com", subject=1)  # mistake: a keyword of the wrong type
goose.enqueue(fetch, 1)  # mistake: the same in an async function
goose.enqueue(add(1))  # mistake: the result instead of the function
goose.enqueue_in("300", add, 1)  # mistake: a text is no delay
goose.enqueue_in(300, add, "1")  # mistake: the function's argument is wrong
goose.enqueue_in(add, 1)  # mistake: the delay is forgotten
goose.enqueue_at(300, add, 1)  # mistake: seconds are no instant
goose.enqueue_at(datetime.now(UTC), fetch)  # mistake: an argument is missing
goose.enqueue_many(add, [goose.call(add, "1")])  # mistake: a call with a wrong argument
goose.enqueue_many(add, [1, 2])  # mistake: items are tuples
goose.batch(on_succes=add)  # mistake: a misspelt callback
goose.batch().enqueue(add, "1")  # mistake: the function's argument is wrong
goose.cron("name", "@daily", add, "1")  # mistake: the function's argument is wrong
goose.cron("name", add, 1)  # mistake: the expression is forgotten
goose.using(catch_up="some")  # mistake: no such policy
goose.using(retries=5)  # mistake: no such option
goose.using(queue=5)  # mistake: a queue is named by a text
goose.using(queue="mail").enqueue(add, "1")  # mistake: bound options change nothing about types
goose.job(queue="mail")(5)  # mistake: not a function
goose.Retry(max_retries="5")  # mistake: a number is wanted
goose.configure(queue=5)  # mistake: a queue is named by a text
job.queue = "other"  # mistake: a job is frozen
goose.enqueue(fetch, job.output)  # mistake: the output has the wrong type
goose.after(job, on_failure="explode")  # mistake: no such policy
goose.after("an-id", unique="k")  # mistake: a key belongs to a function
goose.after(add)  # mistake: a function without a key
goose.after(add, unique=True)  # mistake: all arguments of which call?
goose.enqeue(add, 1)  # mistake: a misspelt verb


async def mistakes() -> None:
    await aio.enqueue(add)  # mistake: an argument is missing
    await aio.enqueue(fetch, 1)  # mistake: it has the wrong type
    await goose.enqueue(add, 1)  # mistake: the sync verb cannot be awaited
