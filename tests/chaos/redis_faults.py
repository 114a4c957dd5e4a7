"""What can be done to a Redis server, and to the network before it, while workers use it.

Each fault is a function of an `Arena`. It returns when the fault is over: the server accepts
connections and commands again. Those of `SERVER` meet everybody, those of `NETWORK` only who
goes through the proxy.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis

from goose.testing.proxy import Proxy
from tests.chaos.fleet import wait_until
from tests.servers.redis import DURABLE, RedisServer

CONFIG = {
    **DURABLE,
    "enable-debug-command": "local",
    "enable-protected-configs": "local",
    "lua-time-limit": "50",
    "repl-timeout": "2",
}
"""A server that survives a kill with all that it acknowledged, and lets itself be tormented."""


@dataclass(slots=True)
class Arena:
    """What a fault can reach."""

    server: RedisServer
    proxy: Proxy
    chance: random.Random
    hold: float
    """Seconds for which a fault lasts that may last."""

    @property
    def admin(self) -> redis.Redis:
        """A connection straight to the server."""
        return self.server.client

    def wait(self) -> None:
        """Let the fault go on."""
        time.sleep(self.hold * self.chance.uniform(0.5, 1.5))


Act = Callable[[Arena], None]


# --- the server -----------------------------------------------------------------------------


def _kill(fsync: str) -> Act:
    def act(arena: Arena) -> None:
        """SIGKILL, and a start a moment later; what was acknowledged is in the AOF."""
        arena.server.config["appendfsync"] = fsync
        arena.admin.config_set("appendfsync", fsync)
        arena.wait()
        arena.server.kill()
        arena.wait()
        arena.server.start()

    return act


def stop_cleanly(arena: Arena) -> None:
    """SIGTERM, and a start a moment later."""
    arena.server.stop()
    arena.wait()
    arena.server.start()


def freeze(arena: Arena) -> None:
    """The process stands still: connections stay open and nobody answers."""
    arena.server.pause()
    arena.wait()
    arena.server.resume()
    arena.admin.ping()


def read_only(arena: Arena) -> None:
    """The master is made a replica, as in a failover, and becomes master again."""
    arena.admin.execute_command("REPLICAOF", "127.0.0.1", "1")
    arena.wait()
    arena.admin.execute_command("REPLICAOF", "NO", "ONE")


def out_of_memory(arena: Arena) -> None:
    """Every command that may need memory is refused."""
    arena.admin.config_set("maxmemory", "1")
    arena.wait()
    arena.admin.config_set("maxmemory", "0")


def script_flush(arena: Arena) -> None:
    """The script cache is emptied ten times a second."""
    end = time.monotonic() + 2 * arena.hold
    while time.monotonic() < end:
        arena.admin.script_flush()
        time.sleep(0.1)


def busy_script(arena: Arena) -> None:
    """A foreign script runs for ever: everybody gets BUSY until it is killed."""
    looping = arena.server.new_client(retry=None)

    def loop() -> None:
        try:
            looping.eval("while true do end", 0)
        except redis.RedisError:
            return

    thread = threading.Thread(target=loop)
    thread.start()
    arena.wait()
    # Only for a script that the server has noticed to be slow there is something to kill.
    wait_until(lambda: _script_killed(arena.admin), 10, "the script can be killed")
    thread.join()


def _script_killed(admin: redis.Redis) -> bool:
    try:
        admin.script_kill()
    except redis.ResponseError:
        return False
    return True


def misconfigured(arena: Arena) -> None:
    """A snapshot cannot be written, so the server takes no writes: as with a full disk."""
    admin = arena.admin
    (arena.server.folder / "a-folder.rdb").mkdir(exist_ok=True)
    admin.config_set("save", "3600 100000000")
    admin.config_set("dbfilename", "a-folder.rdb")
    _snapshot(admin, "err")
    arena.wait()
    admin.config_set("dbfilename", "dump.rdb")
    _snapshot(admin, "ok")
    admin.config_set("save", "")


def _snapshot(admin: redis.Redis, status: str) -> None:
    def has(wanted: str) -> bool:
        info = admin.info("persistence")
        return info["rdb_last_bgsave_status"] == wanted and not info["rdb_bgsave_in_progress"]

    wait_until(lambda: not admin.info("persistence")["aof_rewrite_in_progress"], 20, "no rewrite")
    admin.bgsave()
    wait_until(lambda: has(status), 20, f"a snapshot is {status}")


def pause_writes(arena: Arena) -> None:
    """CLIENT PAUSE … WRITE: writes hang, reads are answered."""
    arena.admin.client_pause(int(arena.hold * 1000), all=False)
    time.sleep(arena.hold)


def pause_everything(arena: Arena) -> None:
    """CLIENT PAUSE … ALL: every command hangs."""
    arena.admin.client_pause(int(arena.hold * 1000), all=True)
    time.sleep(arena.hold)


def kill_clients(arena: Arena) -> None:
    """Every connection is closed by the server, five times within half a second."""
    for _ in range(5):
        _kill_clients(arena)
        time.sleep(0.1)


def _kill_clients(arena: Arena) -> None:
    for kind in ("normal", "pubsub"):
        arena.admin.client_kill_filter(_type=kind, skipme=True)


def too_many_clients(arena: Arena) -> None:
    """Every connection is closed and nearly every new one refused."""
    before = arena.admin.config_get("maxclients")["maxclients"]
    arena.admin.config_set("maxclients", "2")
    _kill_clients(arena)
    arena.wait()
    arena.admin.config_set("maxclients", before)


SERVER: Mapping[str, Act] = {
    "kill, fsync everysec": _kill("everysec"),
    "kill, fsync always": _kill("always"),
    "stop and start": stop_cleanly,
    "freeze": freeze,
    "READONLY": read_only,
    "OOM": out_of_memory,
    "SCRIPT FLUSH, 10 Hz": script_flush,
    "BUSY script": busy_script,
    "MISCONF": misconfigured,
    "CLIENT PAUSE WRITE": pause_writes,
    "CLIENT PAUSE ALL": pause_everything,
    "CLIENT KILL": kill_clients,
    "maxclients": too_many_clients,
}


# --- the network ----------------------------------------------------------------------------


def reset(arena: Arena) -> None:
    """Every connection ends by RST."""
    wait_until(lambda: arena.proxy.reset() > 0, 5, "it meets a request under way")


def reset_thrice(arena: Arena) -> None:
    """The same three times in two seconds or so, each while requests are under way."""
    for _ in range(3):
        reset(arena)
        time.sleep(0.7)


def _lasting(begin: Callable[[Proxy], object]) -> Act:
    """Return a fault that lasts for a while, and until it has met something."""

    def act(arena: Arena) -> None:
        before = arena.proxy.hits.total()
        begin(arena.proxy)
        try:
            arena.wait()
            wait_until(lambda: arena.proxy.hits.total() > before, 5, "it meets a request under way")
        finally:
            arena.proxy.heal()

    return act


def refuse(arena: Arena) -> None:
    """New connections are refused."""
    arena.proxy.refuse()
    arena.wait()
    arena.proxy.heal()


def strand(arena: Arena) -> None:
    """Connections are dead and nobody is told; new ones work."""
    wait_until(lambda: arena.proxy.strand() > 0, 5, "it meets a request under way")


def _cutting(arm: Callable[[Arena], None], times: int = 5) -> Act:
    def act(arena: Arena) -> None:
        for _ in range(times):
            arm(arena)
            try:
                wait_until(lambda: not arena.proxy.armed, 2, "the cut is made")
            finally:
                arena.proxy.heal()

    return act


NETWORK: Mapping[str, Act] = {
    "reset": reset,
    "reset three times": reset_thrice,
    "refuse": refuse,
    "blackhole": _lasting(Proxy.blackhole),
    "strand": strand,
    "delay 100 ms": _lasting(lambda proxy: proxy.delay(0.1)),
    "throttle 20 kB/s": _lasting(lambda proxy: proxy.throttle(20_000)),
    "cut before a request": _cutting(
        lambda arena: arena.proxy.cut_before_request(arena.chance.randint(1, 20))
    ),
    "cut before a reply": _cutting(
        lambda arena: arena.proxy.cut_before_reply(arena.chance.randint(1, 20))
    ),
    "cut inside a request": _cutting(
        lambda arena: arena.proxy.cut_after(arena.chance.randint(1, 3_000))
    ),
    "cut inside a reply": _cutting(
        lambda arena: arena.proxy.cut_after(arena.chance.randint(1, 1_000), direction="down")
    ),
}
