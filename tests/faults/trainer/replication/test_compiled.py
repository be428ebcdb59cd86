"""`fit.xla=true` over a whole run: the numbers of one that is not compiled, and a resume to the same bits.

Without dropout: compiled, a random layer draws other numbers from the same seed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nameplate import checkpoint as store
from tests.jobs import run_job
from tests.trainer.running import assert_same, content
from tests.working import assert_alike

OPTIONS = [
    "strategy=cpu_replicas",
    "data.limit=52",
    "fit.epochs=3",
    "checkpoint.keep_last=99",
    "checkpoint.every_steps=4",
]
MODELS = {
    "mlp": ["model=mlp", "model.hidden=[8]", "model.dropout=0"],
    "convnet": [
        "model=convnet",
        "model.width=4",
        "model.blocks=[1]",
        "model.dropout=0",
        "strategy.sync_batch_norm=false",
    ],
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", MODELS)
def test_a_compiled_run_is_the_same_run(runs: Path, model: str) -> None:
    options = [*OPTIONS, *MODELS[model]]
    assert run_job(runs, *options, f"run={model}") == 0
    assert run_job(runs, *options, f"run={model}_compiled", "fit.xla=true") == 0
    assert_alike(runs / model, runs / f"{model}_compiled", relative=1e-3)
    whole = content(runs / f"{model}_compiled")
    for later in store.checkpoints(runs / f"{model}_compiled" / "checkpoints"):
        if int(later.name.removeprefix("step_")) > 8:
            shutil.rmtree(later)
    assert run_job(runs, *options, f"run={model}_compiled", "fit.xla=true") == 0
    assert_same(content(runs / f"{model}_compiled"), whole)
