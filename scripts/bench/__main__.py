"""`make bench`: every section in its own process, so that none warms the caches of another."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_PARTS = ("__init__", "__main__", "figures")  # not sections
SECTIONS = sorted(
    path.stem
    for path in Path(__file__).parent.iterdir()
    if path.stem not in _PARTS and (path.suffix == ".py" or (path / "__main__.py").exists())
)


def main() -> int:
    """Run the given sections, or all; return 1 if one of them exceeds a limit."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    wanted = parser.parse_args().sections or SECTIONS
    unknown = [section for section in wanted if section not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    failed = []
    for section in wanted:
        print(f"== {section}", flush=True)
        if subprocess.run([sys.executable, "-m", f"scripts.bench.{section}"], check=False).returncode:
            failed.append(section)
    if failed:
        print(f"missed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
