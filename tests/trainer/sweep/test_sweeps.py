"""What is wrong with a command line, of one job or of several, is said in our words alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.running import command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--cfg", "job", "model.width=abc"],
            "one setting of the configuration cannot be used:\n  model.width: 'abc' is",
        ),
        (["-m", "model=mlp,convnet", "fit.epoch=3"], "  fit.epoch: no such key"),
        (["-m", "seed=1,2", "run=a_${seed}"], "  run=a_${seed}: in a sweep, run names the sweep"),
        (["-m", "seed=1,2", "hydra/launcher=cloud"], "  hydra/launcher=cloud: no such launcher is installed"),
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
