"""What can be done to a RabbitMQ node while workers use it.

Each fault is a function of an `Arena`. It returns when the fault is over: the node accepts
connections again. Faults of the network are Redis's campaign's, but for the cuts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from goose.testing.proxy import Proxy
from tests.chaos import redis_faults
from tests.servers.rabbitmq import RabbitServer


@dataclass(slots=True)
class Arena:
    """What a fault can reach."""

    server: RabbitServer
    proxy: Proxy
    chance: random.Random
    hold: float
    """Seconds for which a fault lasts that may last."""

    def wait(self) -> None:
        """Let the fault go on."""
        time.sleep(self.hold * self.chance.uniform(0.5, 1.5))


Act = Callable[[Arena], None]


def kill(arena: Arena) -> None:
    """C1: SIGKILL of the node, and a start a moment later."""
    arena.server.kill()
    arena.wait()
    arena.server.start()


def stop_cleanly(arena: Arena) -> None:
    """SIGTERM of the node, and a start a moment later."""
    arena.server.stop()
    arena.wait()
    arena.server.start()


def freeze(arena: Arena) -> None:
    """The node stands still: connections stay open and nobody answers."""
    arena.server.pause()
    arena.wait()
    arena.server.resume()


def alarm(arena: Arena) -> None:
    """A7, C8: the node is short of memory and takes no messages."""
    arena.server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.0000001).")
    arena.wait()
    arena.server.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4).")


def close_connections(arena: Arena) -> None:
    """An operator closes every connection."""
    arena.server.eval(
        '[rabbit_networking:close_connection(C, "chaos") || C <- rabbit_networking:connections()].'
    )


def kill_leaders(arena: Arena) -> None:
    """Every quorum queue's process dies and comes back."""
    arena.server.eval(
        "[begin {N, _} = amqqueue:get_pid(Q), catch exit(whereis(N), kill) end || "
        "Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue]."
    )


def kill_channels(arena: Arena) -> None:
    """C7: every channel dies under its connection."""
    arena.server.eval("[catch exit(C, kill) || C <- rabbit_channel:list()].")


SERVER: Mapping[str, Act] = {
    "kill": kill,
    "stop and start": stop_cleanly,
    "freeze": freeze,
    "alarm": alarm,
    "connections closed": close_connections,
    "leaders killed": kill_leaders,
    "channels killed": kill_channels,
}


NETWORK: Mapping[str, Act] = {
    name: act for name, act in redis_faults.NETWORK.items() if not name.startswith("cut")
}
