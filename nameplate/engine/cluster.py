"""Who takes part in a run over several workers: from TF_CONFIG, or from the variables that Slurm sets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nameplate.errors import NameplateError

# In the environment of workers that another program starts: how it is called, for commands that are printed.
LAUNCHER = "NAMEPLATE_LAUNCHER"
LAUNCHED = "strategy=multi_worker"  # what it adds to their command line

FIRST_PORT, PORTS = 20_000, 10_000  # a Slurm job listens on a port of its own in this range, by its number


class ClusterError(NameplateError):
    """A description of workers that cannot be meant."""


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, each one process; the first is the chief, which writes what the run keeps."""

    addresses: tuple[str, ...]  # host:port of each worker
    index: int  # of this process

    @property
    def is_chief(self) -> bool:
        """Say whether this process writes."""
        return self.index == 0


def cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Return the workers that the environment describes; None where it describes none.

    TF_CONFIG counts first, then Slurm: a job step with several tasks, one task a worker.

    Raises:
        ClusterError: a description with something missing or wrong.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _from_slurm(environment)
    return None


def hosts(nodelist: str) -> list[str]:
    """Return the hosts of a Slurm node list in its order, e.g. `a[01-03,7],b` is a01 a02 a03 a7 b."""
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        found += _expanded(part)
    return found


def _expanded(part: str) -> list[str]:
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if match is None:
        return [part]
    head, ranges, tail = match.groups()
    numbers: list[str] = []
    for each in ranges.split(","):
        low, _, high = each.partition("-")
        numbers += [f"{number:0{len(low)}d}" for number in range(int(low), int(high or low) + 1)]
    return [f"{head}{number}{rest}" for number in numbers for rest in _expanded(tail)]


def _from_tf_config(text: str) -> Cluster:
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        described = json.loads(text)
        jobs, task = described["cluster"], described["task"]
        order = [*jobs.get("chief", ()), *jobs.get("worker", ())]
        place = int(task["index"]) + (len(jobs.get("chief", ())) if task["type"] == "worker" else 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(f"TF_CONFIG cannot be read ({_reason(error)}); it looks like {example}") from None
    unknown = sorted({*jobs, task["type"]} - {"chief", "worker"})
    if unknown:
        raise ClusterError(
            f"TF_CONFIG has {', '.join(unknown)}; a run has workers, one of which may be called chief, and nothing else"
        )
    return _checked(Cluster(tuple(map(str, order)), place), "TF_CONFIG")


def _reason(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    wanted = {
        "SLURM_JOB_ID": ("SLURM_JOB_ID",),
        "SLURM_STEP_NODELIST": ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),  # the job's, where all of it is the step
        "SLURM_STEP_TASKS_PER_NODE": ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    }
    found = {
        name: next((environment[each] for each in names if each in environment), "") for name, names in wanted.items()
    }
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ClusterError(f"Slurm has set no {', '.join(missing)}; start the workers with srun, one task a worker")
    port = FIRST_PORT + int(found["SLURM_JOB_ID"]) % PORTS
    tasks = zip(hosts(found["SLURM_STEP_NODELIST"]), _counts(found["SLURM_STEP_TASKS_PER_NODE"]), strict=False)
    addresses = [f"{host}:{port + place}" for host, count in tasks for place in range(count)]
    return _checked(Cluster(tuple(addresses), int(environment["SLURM_PROCID"])), "Slurm's variables")


def _counts(text: str) -> list[int]:
    """Return the tasks of each node, e.g. `2(x3),1` is 2 2 2 1."""
    found: list[int] = []
    for each in text.split(","):
        count, _, times = each.partition("(x")
        found += [int(count)] * int(times.rstrip(")") or 1)
    return found


def _checked(found: Cluster, where: str) -> Cluster:
    wrong = [each for each in found.addresses if not re.fullmatch(r"\S+:\d+", each)]
    if wrong:
        raise ClusterError(f"{where}: {', '.join(wrong)} is no host:port")
    if len(set(found.addresses)) != len(found.addresses):
        raise ClusterError(f"{where}: two workers have one address among {', '.join(found.addresses)}")
    if not 0 <= found.index < len(found.addresses):
        raise ClusterError(f"{where}: no worker {found.index} among {len(found.addresses)}; they count from 0")
    return found


def as_tf_config(found: Cluster) -> dict[str, Any]:
    """Return the workers as TF_CONFIG describes them."""
    return {"cluster": {"worker": list(found.addresses)}, "task": {"type": "worker", "index": found.index}}
