"""Who the workers are, read from TF_CONFIG or from what Slurm sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nameplate.engine.cluster import FIRST_PORT, Cluster, ClusterError, as_tf_config, cluster, hosts

TWO = ("a:1", "b:2")


def tf_config(cluster: Any, kind: str = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def slurm(**changed: str | None) -> dict[str, str]:
    """Return what srun sets for the third of four tasks on two nodes."""
    given: dict[str, str | None] = {
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_JOB_ID": "12345678",
        "SLURM_STEP_NODELIST": "node[08-09]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }
    return {name: value for name, value in (given | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (tf_config({"worker": list(TWO)}, index=1), Cluster(TWO, 1)),
        (tf_config({"worker": list(TWO)}, index="1"), Cluster(TWO, 1)),
        (tf_config({"chief": ["a:1"], "worker": ["b:2"]}, "chief"), Cluster(TWO, 0)),
        (tf_config({"chief": ["a:1"], "worker": ["b:2"]}, "worker"), Cluster(TWO, 1)),
        (tf_config({"worker": ["a:1"]}), Cluster(("a:1",), 0)),
        (tf_config({"worker": ["[::1]:2222", "b.c-d.example:2"]}), Cluster(("[::1]:2222", "b.c-d.example:2"), 0)),
    ],
    ids=["worker", "index as a text", "chief", "worker after the chief", "one alone", "addresses"],
)
def test_tf_config_says_who_the_workers_are(environment: dict[str, str], expected: Cluster) -> None:
    found = cluster(environment)
    assert found == expected
    assert found.is_chief == (found.index == 0)
    assert cluster({"TF_CONFIG": json.dumps(as_tf_config(found))}) == found


WRONG: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot be read"),
    "no cluster": ('{"task": {"type": "worker", "index": 0}}', "'cluster' is missing"),
    "no task": ('{"cluster": {"worker": ["a:1"]}}', "'task' is missing"),
    "another kind": (tf_config({"worker": ["a:1"], "ps": ["b:2"]})["TF_CONFIG"], "has ps"),
    "an evaluator": (tf_config({"worker": ["a:1"]}, "evaluator")["TF_CONFIG"], "has evaluator"),
    "no port": (tf_config({"worker": ["a", "b:2"]})["TF_CONFIG"], "a is not host:port"),
    "one twice": (tf_config({"worker": ["a:1", "a:1"]})["TF_CONFIG"], "two workers have the same address"),
    "beyond": (tf_config({"worker": list(TWO)}, index=2)["TF_CONFIG"], "there is no worker 2 among 2"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_tf_config_that_cannot_be_meant_is_refused_in_words(what: str) -> None:
    text, says = WRONG[what]
    with pytest.raises(ClusterError, match=says):
        cluster({"TF_CONFIG": text})


@pytest.mark.parametrize(
    ("nodelist", "expected"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a[1-3]", ["a1", "a2", "a3"]),
        ("a[01-03,7],b", ["a01", "a02", "a03", "a7", "b"]),
        ("a[098-101]", ["a098", "a099", "a100", "a101"]),
        ("rack[1-2]node[1,3]", ["rack1node1", "rack1node3", "rack2node1", "rack2node3"]),
        ("gpu-[1-2].example.org,b-01", ["gpu-1.example.org", "gpu-2.example.org", "b-01"]),
    ],
)
def test_a_node_list_of_slurm_names_its_hosts_in_order(nodelist: str, expected: list[str]) -> None:
    assert hosts(nodelist) == expected


def test_slurm_gives_each_task_of_a_node_a_port_of_its_own() -> None:
    first = FIRST_PORT + 5678
    expected = (f"node08:{first}", f"node08:{first + 1}", f"node09:{first}", f"node09:{first + 1}")
    assert cluster(slurm()) == Cluster(expected, 2)
    uneven = cluster(slurm(SLURM_STEP_TASKS_PER_NODE="1,3"))
    assert uneven is not None
    assert [each.partition(":")[0] for each in uneven.addresses] == ["node08", "node09", "node09", "node09"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"TF_CONFIG": ""}, {"SLURM_JOB_ID": "1"}, slurm(SLURM_STEP_NUM_TASKS="1"), slurm(SLURM_PROCID=None)],
    ids=["nothing", "an empty TF_CONFIG", "sbatch without srun", "one task", "outside of a step"],
)
def test_one_process_is_no_cluster(environment: dict[str, str]) -> None:
    assert cluster(environment) is None


def test_a_step_that_is_all_of_its_job_has_the_jobs_nodes() -> None:
    step = {"SLURM_STEP_NODELIST": None, "SLURM_STEP_TASKS_PER_NODE": None}
    job = {"SLURM_JOB_NODELIST": "node[08-09]", "SLURM_TASKS_PER_NODE": "2(x2)"}
    assert cluster(slurm(**step) | job) == cluster(slurm())


def test_tf_config_counts_before_slurm_and_what_slurm_lacks_is_told() -> None:
    assert cluster(slurm() | tf_config({"worker": list(TWO)})) == Cluster(TWO, 0)
    with pytest.raises(ClusterError, match="Slurm has not set SLURM_STEP_NODELIST; start the workers with srun"):
        cluster(slurm(SLURM_STEP_NODELIST=None))
