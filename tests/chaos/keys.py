"""Unique keys and limits while clients and workers are killed: ``python -m tests.chaos.keys URL``.

Clients (16) enqueue jobs for a few keys without a pause, unique for their key and with at most
two at once for a tenant; workers run them and write when each began and ended; somebody kills
clients and worker processes all the time. A run that was killed ended when its process did. Afterwards

* no two jobs of one key ran at the same time,
* never more than two jobs of one tenant ran at the same time, and
* every key is free: a last job for each runs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
APP = """
import os
import time
import goose

LIMIT = goose.Limit(concurrency=2, by=lambda key, tenant: tenant)


def write(line):
    fd = os.open("marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\\n".encode())
    os.close(fd)


@goose.job(unique=lambda key, tenant: key, limit=LIMIT)
def work(key, tenant):
    job = goose.current().job
    write(f"begin {key} {tenant} {job.id} {os.getpid()} {time.monotonic()}")
    time.sleep(0.02 if key != "last" else 0)
    write(f"end {key} {tenant} {job.id} {os.getpid()} {time.monotonic()}")
"""
CLIENT = """
import random, sys, time
import goose, key_app
goose.configure(broker=sys.argv[1])
chance = random.Random()
while True:
    number = chance.randrange(8)
    goose.enqueue(key_app.work, f"key-{number}", f"tenant-{number % 2}")
"""


@dataclass
class Run:
    """One run of a job: from when to when, in monotonic seconds."""

    job: str
    process: str
    begin: float
    end: float = float("inf")


@dataclass
class Verdict:
    """What a campaign saw."""

    runs: int = 0
    jobs: int = 0
    kills: int = 0
    overlaps: list[str] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.overlaps and not self.stuck and all(n <= 2 for n in self.peaks.values())

    def __str__(self) -> str:
        return (
            f"{self.runs} runs of {self.jobs} jobs, {self.kills} kills; overlaps of a key: "
            f"{len(self.overlaps)}; most at once: {self.peaks}; stuck keys: {self.stuck}"
        )


def campaign(
    url: str, folder: Path, *, seconds: float, clients: int = 16, seed: int = 1
) -> Verdict:
    """Run it in *folder* for *seconds*; return what was seen."""
    chance = random.Random(seed)
    (folder / "key_app.py").write_text(APP)
    (folder / "client.py").write_text(CLIENT)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    deaths: dict[str, float] = {}
    verdict = Verdict()

    def client() -> subprocess.Popen[bytes]:
        command = [sys.executable, "client.py", url]
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)

    def worker() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "goose", "worker", "key_app", "--broker", url]
        command += ["--ttl", "3s", "--processes", "2", "--concurrency", "4"]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=folder, env=environment, stderr=log)

    crowd = [client() for _ in range(clients)]
    workers = [worker(), worker()]
    try:
        begun = time.monotonic() + 120
        while not _lines(folder) and time.monotonic() < begun:
            time.sleep(0.1)  # so many processes take their time to start
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.1, 0.6))
            verdict.kills += 1
            if chance.random() < 0.5:
                place = chance.randrange(clients)
                crowd[place].kill()
                crowd[place].wait()
                crowd[place] = client()
            else:
                _kill_child(chance.choice(workers).pid, chance, deaths)
        for each in crowd:
            each.kill()
            each.wait()
        verdict.stuck = _last(url, folder)
    finally:
        for each in [*crowd, *workers]:
            each.send_signal(signal.SIGTERM)
        for each in [*crowd, *workers]:
            each.wait(60)
    _judge(folder, deaths, verdict)
    return verdict


def _kill_child(supervisor: int, chance: random.Random, deaths: dict[str, float]) -> None:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    if children:
        victim = chance.choice(children)
        os.kill(int(victim), signal.SIGKILL)
        # It may have run until it was gone, not only until it was told to go.
        while _lives(victim):
            time.sleep(0.001)
        deaths[victim] = time.monotonic()


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _last(url: str, folder: Path) -> list[str]:
    """Enqueue a last job for each key; return those that did not run within two minutes."""
    sys.path.insert(0, str(folder))
    import key_app  # type: ignore[import-not-found]

    import goose

    with goose.Client(url) as client:
        deadline = time.monotonic() + 120
        wanted = {f"key-{number}": "" for number in range(8)}
        for key in wanted:
            job = client.enqueue(key_app.work, key, f"tenant-{int(key[-1]) % 2}")
            wanted[key] = job.id
        while time.monotonic() < deadline:
            ended = {line.split()[3] for line in _lines(folder) if line.startswith("end")}
            if ended >= set(wanted.values()):
                return []
            time.sleep(0.1)
    return [key for key, id_ in wanted.items() if id_ not in ended]


def _lines(folder: Path) -> list[str]:
    marks = folder / "marks"
    return marks.read_text().splitlines() if marks.exists() else []


def _judge(folder: Path, deaths: dict[str, float], verdict: Verdict) -> None:
    by_key: dict[str, list[Run]] = defaultdict(list)
    by_tenant: dict[str, list[Run]] = defaultdict(list)
    open_runs: dict[tuple[str, str], Run] = {}
    for line in _lines(folder):
        what, key, tenant, job, process, at = line.split()
        if what == "begin":
            run = Run(job, process, float(at), deaths.get(process, float("inf")))
            open_runs[job, process] = run
            by_key[key].append(run)
            by_tenant[tenant].append(run)
        else:
            open_runs[job, process].end = float(at)
    for key, runs in by_key.items():
        verdict.runs += len(runs)
        verdict.jobs += len({run.job for run in runs})
        runs.sort(key=lambda run: run.begin)
        for earlier, later in itertools.pairwise(runs):
            if later.begin < earlier.end:
                verdict.overlaps.append(f"{key}: {earlier} and {later}")
    for tenant, runs in by_tenant.items():
        events = sorted([(run.begin, 1) for run in runs] + [(run.end, -1) for run in runs])
        now = most = 0
        for _, change in events:
            now += change
            most = max(most, now)
        verdict.peaks[tenant] = most


def main() -> int:
    """Run the campaign; return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goose-keys-") as folder:
        verdict = campaign(
            chosen.url.replace("FOLDER", folder),
            Path(folder),
            seconds=chosen.seconds,
            clients=chosen.clients,
            seed=chosen.seed,
        )
        print(verdict)
        for overlap in verdict.overlaps[:5]:
            print(overlap)
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
