"""One case in its own process, since devices can be configured only once: `python -m scripts.bench.loop.case CASE`."""

from __future__ import annotations

import argparse
import importlib
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from nameplate.training.console import import_tensorflow
from scripts.bench.figures import keep

CASES = {
    "steps": ("host", 9),
    "alone": ("host", 9),
    "epochs": ("host", 7),
    "job": ("job", 7),
    "job_light": ("job", 7),
    "compute": ("compute", 7),
    "compute_alone": ("compute", 7),
    "start": ("host", 7),
    "start_alone": ("host", 7),
    "replicas_1": ("host", 7),
    "replicas_2": ("host", 7),
    "replicas_4": ("host", 7),
    "on_gpus": ("compute", 7),
}  # case, the name of a function -> (its module, rounds)


def main() -> int:
    """Measure a case, print and keep its figures; return 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int)
    arguments = parser.parse_args()
    import_tensorflow()
    warnings.filterwarnings("ignore", message="`shuffle=True` was passed", category=UserWarning)
    module, rounds = CASES[arguments.case]
    measure = getattr(importlib.import_module(f"scripts.bench.loop.{module}"), arguments.case)
    print(f"-- {arguments.case}: {measure.__doc__.splitlines()[0]}", flush=True)
    figures, times = measure(arguments.rounds or rounds)
    for name, time in times.items():
        print(f"  {name:<66} {1000 * time.wall:9.3f} ms, CPU {1000 * time.cpu:9.3f} ms")
    for figure in figures:
        print(figure)
    if times:
        keep("loop", arguments.case, figures, {"times": {name: time.plain() for name, time in times.items()}})
    return int(any(figure.missed for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
