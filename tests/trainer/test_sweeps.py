"""Several jobs of one command line: each has a run of its own, and says how to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.running import QUICK, command


def test_each_job_names_its_run_and_goes_on_without_what_was_said_once(tmp_path: Path) -> None:
    once = ["resume=false", "resume_changed=[seed]", "dry_run=false"]
    sweep = ["-m", *QUICK, "model=mlp", "fit.steps=1", "seed=1,2", "run=a_${seed}_${hydra:job.num}", *once]
    done = command(*sweep, f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert {each.name for each in tmp_path.iterdir() if each.is_dir()} == {"a_1_0", "a_2_1"}
    commands = [line for line in done.stdout.splitlines() if "python -m trainer" in line]
    assert [line.split()[-2:] for line in commands] == [
        [f"runs={tmp_path}", "run=a_1_0"],
        [f"runs={tmp_path}", "run=a_2_1"],
    ]
    assert not any(word in line for line in commands for word in ("resume", "dry_run"))


@pytest.mark.parametrize(
    ("overrides", "own"),
    [
        (["seed=1,2", "run=a"], "'run=a_${seed}'"),
        (["model=mlp,convnet", "run='a'"], "'run=a_${hydra:job.num}'"),
        (["run=a,b", "fit.epochs=range(1,3)", "seed=1"], "'run=a_${fit.epochs}'"),
    ],
)
def test_one_run_for_several_jobs_is_refused_before_the_first(tmp_path: Path, overrides: list[str], own: str) -> None:
    done = command("-m", *overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert "would be this one run" in done.stderr
    assert own in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cfg", "job", "model.width=abc"], "one setting of the configuration cannot be used:\n  model.width: Value"),
        (["-m", "model=mlp,convnet", "fit.epoch=3"], "  fit.epoch: no such key"),
        (["seed=${oc.env:NOPE}"], "  seed: Environment variable 'NOPE' not found\n"),
        (["+fit.foo=1"], "  fit.foo: no such key"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_only_our_words_say_what_is_wrong(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "Error executing" not in done.stderr + done.stdout
    assert "not an override" not in done.stderr
