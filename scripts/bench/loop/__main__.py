"""The limits of the training loop's cost, each case in its own process.

    python -m scripts.bench.loop [CASE ...] [--rounds 7]

Contenders take turns inside a process, and the minimum over the rounds counts, of wall time and of CPU time. The cost
of a step is that of a long run minus that of a short one. The results are kept in `scripts/bench/results`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from scripts.bench.loop.case import CASES
from scripts.bench.loop.chart import draw


def main() -> int:
    """Run the given cases, or all; return 1 if one of them exceeds a limit."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.loop", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, help="how often each is timed; default: depends on the case")
    arguments = parser.parse_args()
    unknown = [case for case in arguments.cases if case not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    rounds = [f"--rounds={arguments.rounds}"] if arguments.rounds else []
    missed = [
        case
        for case in arguments.cases or CASES
        if subprocess.run([sys.executable, "-m", "scripts.bench.loop.case", case, *rounds], check=False).returncode
    ]
    if table := draw():
        print(f"cost by replicas and size: {table}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
