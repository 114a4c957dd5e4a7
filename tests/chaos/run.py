"""``make chaos BROKER=…``: the fault campaign in full, with its report.

Usage: python -m tests.chaos.run BROKER [--jobs N] [--kills N] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos import workers


def main() -> int:
    """Run the campaign; return 0 if nothing was lost and every duplicate is explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker", choices=["sqlite"])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goose-chaos-") as folder:
        plan = workers.Plan(chosen.jobs, chosen.kills, seed=chosen.seed)
        result = workers.run(f"sqlite:///{folder}/chaos.db", Path(folder), plan)
        print("\n".join(result.lines()))
        poison = {"segfault": "crashed", "leave": "crashed", "never_end": "timeout"}
        if result.dead != poison:
            print(f"dead should be exactly {poison}")
        return 0 if result.verdict.ok and result.dead == poison else 1


if __name__ == "__main__":
    sys.exit(main())
