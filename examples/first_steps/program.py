"""First steps: enqueue some jobs, run them, print what they made.

    python program.py

The broker is named in goose.toml, and only there: the program is the same for every one. It
runs its jobs itself, in a worker inside this process. With a broker that processes share,
leave that out and start ``goose worker`` beside it, as many as you like.
"""

import tempfile
import time
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from first_jobs import invoice, remind

import goose


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        goose.enqueue(invoice, "Ada", Decimal("9.90"), due=date(2030, 1, 31), folder=folder)
        goose.enqueue_in(timedelta(seconds=0.3), remind, "Ada", folder)
        goose.enqueue_many(remind, [("Alan", folder), goose.call(remind, "Grace", folder=folder)])

        careful = goose.using(retry=goose.Retry(max_retries=3, backoff=1), timeout=30)
        careful.enqueue(invoice, "Edsger", Decimal(7), due=date(2030, 2, 28), folder=folder)

        with goose.Worker():
            wait_for(folder, files=5)
        for path in sorted(folder.iterdir(), key=lambda path: path.stem):
            print(f"{path.stem}: {path.read_text().strip()}")


def wait_for(folder: Path, files: int) -> None:
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) < files:
        if time.monotonic() > deadline:
            raise TimeoutError("the jobs did not run; see the log, or: goose jobs list")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
