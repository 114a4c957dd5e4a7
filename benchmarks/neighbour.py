"""Another client of a Redis server, at PORT: says PING until its input ends, then its longest wait.

Usage: python neighbour.py PORT
"""

from __future__ import annotations

import select
import sys
import time

import redis


def main() -> None:
    """Print ``ready``, and at the end the longest wait, in milliseconds."""
    client = redis.Redis(port=int(sys.argv[1]))
    client.ping()
    print("ready", flush=True)
    longest = 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.perf_counter()
        client.ping()
        longest = max(longest, time.perf_counter() - began)
    print(1e3 * longest, flush=True)


if __name__ == "__main__":
    main()
