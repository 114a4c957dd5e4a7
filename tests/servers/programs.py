"""Finds the server programs that tests start, and installs Debian's packages of them where it may.

What is missing is installed before the first test, by one process (`install_missing`), since
test files run side by side and one test's minute is too short for a package manager.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

PACKAGES = {
    "redis-server": "redis-server",
    "redis-sentinel": "redis-sentinel",
    "rabbitmqctl": "rabbitmq-server",
    "epmd": "erlang-base",
    "pg_ctlcluster": "postgresql-15",
    "pgbouncer": "pgbouncer",
    "mariadbd": "mariadb-server-core",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "strace": "strace",
    "openssl": "openssl",
}
"""Debian's package of each program that tests start."""
_PLACES = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"


def find(program: str) -> str:
    """Return the path of *program*, one of `PACKAGES`; as root on Debian, install what is missing.

    Raises:
        RuntimeError: It is missing and cannot be installed; the message names what to install.
    """
    package = PACKAGES[program]
    found = _which(program)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(package)
        found = _which(program)
    if found is None:
        raise RuntimeError(
            f"these tests start {program}, which is not installed: "
            f"sudo apt-get install -y {package}"
        )
    return found


def install_missing() -> None:
    """Install the packages of all programs that are not there, as root on Debian.

    Where that is not possible, or fails, the tests that need a program say so themselves.
    """
    missing = {package for program, package in PACKAGES.items() if _which(program) is None}
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        with contextlib.suppress(RuntimeError):
            _install(*sorted(missing))


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PLACES}")


def _install(*packages: str) -> None:
    # Debian starts what it installs; a server of the machine is none of the tests' business.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    patient = ("-o", "DPkg::Lock::Timeout=300")  # while another installs
    install = ["apt-get", *patient, "install", "-qq", "-y", "--no-install-recommends", *packages]
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            return
    raise RuntimeError(f"{' '.join(install)} failed; install it by hand: {done.stderr}")
