"""Procrastinate: psycopg 3 with its C part, finished jobs deleted.

``python on_procrastinate.py setup`` makes its tables.
"""

import os
import sys
from collections.abc import Sequence

import jobs
import procrastinate
import produce

working = "worker" in sys.argv
connector = procrastinate.PsycopgConnector if working else procrastinate.SyncPsycopgConnector
app = procrastinate.App(connector=connector(conninfo=os.environ["BENCH_DATABASE"]))


@app.task(name="noop")
async def noop(place: int) -> None:
    jobs.noop(place)


@app.task(name="stamp")
async def stamp(place: int) -> None:
    jobs.stamp(place)


tasks = {"noop": noop, "stamp": stamp}


def send(kind: str, place: int) -> None:
    tasks[kind].defer(place=place)


def bulk(kind: str, places: Sequence[int]) -> None:
    tasks[kind].batch_defer(*[{"place": place} for place in places])


if __name__ == "__main__":
    with app.open():
        if sys.argv[1] == "setup":
            app.schema_manager.apply_schema()
        else:
            produce.main(send, bulk=bulk)
