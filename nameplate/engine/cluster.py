"""The workers of a run, as TF_CONFIG or Slurm's environment variables describe them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nameplate.errors import NameplateError

# Set by a program that starts workers: its own command, for the commands that a run prints.
LAUNCHER = "NAMEPLATE_LAUNCHER"
LAUNCHED = "strategy=multi_worker"  # the override that it adds to their command lines

FIRST_PORT, PORTS = 20_000, 10_000  # a Slurm job takes a port in this range by its number


class ClusterError(NameplateError):
    """The description of the workers is invalid, or they could not meet."""


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, one process each; the first is the chief, which alone writes files."""

    addresses: tuple[str, ...]  # host:port of each worker
    index: int  # of this process

    @property
    def is_chief(self) -> bool:
        """Say whether this process writes the run's files."""
        return self.index == 0


def cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Return the workers that the environment describes; None if it describes none.

    TF_CONFIG takes precedence over Slurm, where a job step has several tasks, one a worker.

    Raises:
        ClusterError: something in the description is missing or wrong.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _from_slurm(environment)
    return None


def hosts(nodelist: str) -> list[str]:
    """Return the hosts of a Slurm node list in its order, e.g. `a[01-03,7],b` is a01 a02 a03 a7 b."""
    parts = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist)
    return [host for part in parts for host in _expanded(part)]


def _expanded(part: str) -> list[str]:
    match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if match is None:
        return [part]
    head, ranges, tail = match.groups()
    numbers: list[str] = []
    for span in ranges.split(","):
        low, _, high = span.partition("-")
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
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    wanted = {
        "SLURM_JOB_ID": ("SLURM_JOB_ID",),
        "SLURM_STEP_NODELIST": ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),  # the job's if the step is all of it
        "SLURM_STEP_TASKS_PER_NODE": ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    }
    values = {
        name: next((environment[name] for name in names if name in environment), "") for name, names in wanted.items()
    }
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ClusterError(f"Slurm has not set {', '.join(missing)}; start the workers with srun, one task a worker")
    port = FIRST_PORT + int(values["SLURM_JOB_ID"]) % PORTS
    tasks = zip(hosts(values["SLURM_STEP_NODELIST"]), _counts(values["SLURM_STEP_TASKS_PER_NODE"]), strict=False)
    addresses = [f"{host}:{port + place}" for host, count in tasks for place in range(count)]
    return _checked(Cluster(tuple(addresses), int(environment["SLURM_PROCID"])), "Slurm's variables")


def _counts(text: str) -> list[int]:
    """Return the tasks of each node, e.g. `2(x3),1` is 2 2 2 1."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def _checked(cluster: Cluster, where: str) -> Cluster:
    wrong = [address for address in cluster.addresses if not re.fullmatch(r"\S+:\d+", address)]
    if wrong:
        raise ClusterError(f"{where}: {', '.join(wrong)} is not host:port")
    if len(set(cluster.addresses)) != len(cluster.addresses):
        raise ClusterError(f"{where}: two workers have the same address among {', '.join(cluster.addresses)}")
    if not 0 <= cluster.index < len(cluster.addresses):
        raise ClusterError(
            f"{where}: there is no worker {cluster.index} among {len(cluster.addresses)}, counted from 0"
        )
    return cluster


def as_tf_config(cluster: Cluster) -> dict[str, Any]:
    """Return the workers as TF_CONFIG describes them."""
    return {"cluster": {"worker": list(cluster.addresses)}, "task": {"type": "worker", "index": cluster.index}}
