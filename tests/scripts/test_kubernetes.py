"""The manifest hangs together, and its shell tells each worker who it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nameplate.engine.cluster import cluster
from nameplate.errors import Exit
from scripts.readme_map import ROOT

SERVICE, CLAIM, JOB = yaml.safe_load_all((ROOT / "scripts" / "kubernetes.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
WORKER = POD["containers"][0]
SETTINGS: dict[str, str] = {each["name"]: each["value"] for each in WORKER["env"]}


def test_the_parts_name_each_other() -> None:
    assert [each["kind"] for each in (SERVICE, CLAIM, JOB)] == ["Service", "PersistentVolumeClaim", "Job"]
    name = JOB["metadata"]["name"]
    assert SERVICE["metadata"]["name"] == POD["subdomain"] == SETTINGS["RUN"] == name
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["ports"][0]["port"] == WORKER["ports"][0]["containerPort"]
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] == int(SETTINGS["WORKERS"])
    volumes = {each["name"]: each for each in POD["volumes"]}
    assert {each["name"] for each in WORKER["volumeMounts"]} == volumes.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]


def test_every_exit_code_leads_where_the_readme_says() -> None:
    """A policy by exit codes needs pods that are never started again by themselves."""
    assert POD["restartPolicy"] == "Never"
    assert JOB["spec"]["completionMode"] == "Indexed"
    rules: list[dict[str, Any]] = JOB["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"]
        for rule in rules
        if "onExitCodes" in rule and rule["onExitCodes"]["containerName"] == WORKER["name"]
        for code in rule["onExitCodes"]["values"]
    }
    assert {code for code, action in by_code.items() if action == "FailJob"} == {
        Exit.FAILED,
        Exit.REFUSED,
        Exit.NOT_FINITE,
    }
    assert [code for code, action in by_code.items() if action == "Ignore"] == [Exit.TERMINATED]


@pytest.mark.parametrize("index", [0, 1])
def test_the_shell_tells_each_worker_who_it_is(tmp_path: Path, index: int) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$TF_CONFIG" "$@"\n')
    python.chmod(0o755)
    given = SETTINGS | {"JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*WORKER["command"], *WORKER["args"]]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    described, *arguments = done.stdout.splitlines()
    found = cluster({"TF_CONFIG": described})
    assert found is not None
    assert (found.addresses, found.index) == (("mine-0.mine:2222", "mine-1.mine:2222"), index)
    composed = subprocess.run(
        [sys.executable, *arguments, "--cfg", "job"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert composed.returncode == 0, composed.stderr
    assert "kind: multi_worker" in composed.stdout
    assert "run: mine\nruns: /runs\n" in composed.stdout
