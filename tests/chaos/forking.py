"""A program that forks after it has connected, as application servers do; both sides enqueue.

Usage: python -m tests.chaos.forking URL PREFIX COUNT
Prints the names of the jobs whose enqueue returned.
"""

from __future__ import annotations

import os
import sys

import goose
from tests.chaos import jobs


def enqueue(client: goose.Client, prefix: str, count: int) -> None:
    """Enqueue *count* jobs and print the name of each."""
    for number in range(count):
        name = f"{prefix}-{number}"
        client.enqueue(jobs.work, name, 0.001)
        os.write(1, f"{name}\n".encode())  # whole, though two processes write


def main(url: str, prefix: str, count: int) -> int:
    """Enqueue, fork, and enqueue on both sides at once."""
    client = goose.Client(url)
    enqueue(client, f"{prefix}-before", count)
    child = os.fork()
    enqueue(client, f"{prefix}-{'parent' if child else 'child'}", count)
    if not child:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    enqueue(client, f"{prefix}-after", count)
    client.close()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
