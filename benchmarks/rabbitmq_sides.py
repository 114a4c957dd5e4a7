"""Who is measured on RabbitMQ, with which packages and queues, and how its worker is started.

Settings are those each library's documentation recommends for throughput, and nothing is kept of
results. Dramatiq and Celery do not ask the server whether it has a job unless they are told to;
so they are here both ways. Taskiq's driver always asks, and so does Goose. Goose and Taskiq have
replicated queues (quorum queues) unless told otherwise, the others classic ones.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis_trial
import turns
from redis_sides import CELERY, DRAMATIQ, TASKIQ, TASKIQ_WORKER, celery, goose, program


@dataclass(frozen=True)
class Side(turns.Side):
    """One library, with one kind of queue."""

    query: str = ""
    """Of the URL."""
    confirmed: bool = True
    """Whether an enqueue that returned is one that the server has."""
    quorum: bool = False
    """Whether its queues are quorum queues."""

    @property
    def is_bare(self) -> bool:
        """Whether it is the server alone, which nobody beats."""
        return self.module == "on_bare"

    def trial(self, server: Any, folder: Path, places: int) -> Trial:
        return Trial(self, server, folder, places)


class Trial(redis_trial.Trial):
    """A vhost of its own, made for it."""

    side: Side

    def wipe(self) -> None:
        name = f"bench-{secrets.token_hex(4)}"
        self.server.eval(
            '[rabbit_vhost:delete(V, <<>>) || V <- rabbit_vhost:list_names(), V =/= <<"/">>], '
            f'rabbit_vhost:add(<<"{name}">>, <<>>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<>>).'
        )
        self.url = f"{self.server.url}/{name}{self.side.query}"

    def _environment(self, **more: str) -> dict[str, str]:
        confirm = "1" if self.side.confirmed else ""
        quorum = "1" if self.side.quorum else ""
        return super()._environment(BENCH_CONFIRM=confirm, BENCH_QUORUM=quorum, **more)


_DRAMATIQ_WORKER = program("dramatiq", "on_dramatiq", "-p", "1", "-t", "{n}")
_PREFETCH = {"dramatiq_queue_prefetch": "200"}

SIDES: tuple[Side, ...] = (
    Side(
        name="goose",
        module="on_goose",
        worker=goose,
        share=3,
        quorum=True,
        settings="as installed; --processes 1 --concurrency 1; confirmed, quorum queue",
    ),
    Side(
        name="goose-classic",
        module="on_goose",
        worker=goose,
        share=3,
        query="?queue_type=classic",
        settings="the same on a classic queue",
    ),
    *(
        Side(
            name=f"goose-tasks{'' if quorum else '-classic'}",
            module="on_goose",
            worker=goose,
            share=3,
            drains=False,
            environment={"BENCH_TASKS": "1"},
            query="" if quorum else "?queue_type=classic",
            quorum=quorum,
            settings=f"enqueues from tasks (goose.aio), on a {'quorum' if quorum else 'classic'} queue",
        )
        for quorum in (True, False)
    ),
    *(
        Side(
            name=f"bare{'' if quorum else '-classic'}",
            module="on_bare",
            worker=program("python"),
            drains=False,
            quorum=quorum,
            settings=f"bytes over a socket and back, on a {'quorum' if quorum else 'classic'} queue",
        )
        for quorum in (True, False)
    ),
    Side(
        name="dramatiq",
        module="on_dramatiq",
        worker=_DRAMATIQ_WORKER,
        requirements=DRAMATIQ,
        has_bulk=False,
        environment=_PREFETCH,
        confirmed=False,
        settings="-p 1 -t 1, dramatiq_queue_prefetch=200; not confirmed, classic queue",
    ),
    Side(
        name="dramatiq-confirmed",
        module="on_dramatiq",
        worker=_DRAMATIQ_WORKER,
        requirements=DRAMATIQ,
        share=0.1,
        has_bulk=False,
        environment=_PREFETCH,
        settings="the same with confirm_delivery=True",
    ),
    Side(
        name="celery",
        module="on_celery",
        worker=celery,
        requirements=CELERY,
        share=0.5,
        concurrency=4,
        has_bulk=False,
        confirmed=False,
        settings="-P threads -c 4, prefetch_multiplier=128; not confirmed, classic queue",
    ),
    Side(
        name="celery-confirmed",
        module="on_celery",
        worker=celery,
        requirements=CELERY,
        share=0.1,
        concurrency=4,
        has_bulk=False,
        settings="the same with confirm_publish",
    ),
    Side(
        name="celery-quorum",
        module="on_celery",
        worker=celery,
        requirements=CELERY,
        share=0.1,
        concurrency=4,
        has_bulk=False,
        quorum=True,
        settings="the same with confirm_publish and task_default_queue_type=quorum",
    ),
    *(
        Side(
            name=f"taskiq{'' if quorum else '-classic'}",
            module="on_taskiq",
            worker=TASKIQ_WORKER,
            requirements=TASKIQ,
            share=0.5,
            concurrency=100,
            has_bulk=False,
            environment={"BENCH_TASKIQ": "rabbitmq"},
            quorum=quorum,
            settings=settings,
        )
        for quorum, settings in (
            (
                True,
                (
                    "--max-async-tasks 100 --max-prefetch 100 --no-parse, qos=200, uvloop; "
                    "confirmed, quorum queue"
                ),
            ),
            (False, "the same on a classic queue"),
        )
    ),
)
