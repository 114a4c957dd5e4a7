"""A middleware of your own: a context manager around each execution.

goose worker app.tasks --middleware custom_middleware:say
"""

from collections.abc import Iterator
from contextlib import contextmanager

from goose import Execution


@contextmanager
def say(execution: Execution) -> Iterator[None]:
    """Prints when a job begins, and whether it returned or raised."""
    print(f"{execution.job.fn} begins", flush=True)
    try:
        yield
    except Exception as error:
        print(f"{execution.job.fn} raised {error!r}", flush=True)
        raise
    print(f"{execution.job.fn} returned {execution.result!r}", flush=True)
