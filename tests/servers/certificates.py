"""Certificates for servers of the tests, made by the openssl command for one run."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers import programs

DAYS = "2"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates, in a *folder* of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._own = Pair(folder / "ca.crt", folder / "ca.key")
        _openssl(
            *("req", "-x509", *_KEY, "-days", DAYS, "-subj", f"/CN={name}"),
            *("-keyout", str(self._own.key), "-out", str(self._own.certificate)),
        )

    @property
    def certificate(self) -> Path:
        """What to trust."""
        return self._own.certificate

    def sign(self, name: str, *, alternatives: Sequence[str] = ()) -> Pair:
        """Return a certificate for *name*.

        Args:
            name: The common name.
            alternatives: Whom it is for, as in ``DNS:localhost`` or ``IP:127.0.0.1``.
        """
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        more = self._folder / f"{name}.ext"
        more.write_text(f"subjectAltName={','.join(alternatives)}\n" if alternatives else "")
        _openssl(
            "req", *_KEY, "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request)
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", DAYS, "-extfile", str(more)),
            *("-CA", str(self._own.certificate), "-CAkey", str(self._own.key), "-CAcreateserial"),
            *("-out", str(pair.certificate)),
        )
        return pair


def _openssl(*arguments: str) -> None:
    command = [programs.find("openssl"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
