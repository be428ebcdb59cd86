"""One small checkpoint of every format version, kept for ever: it must load, and today's must still be
written the same.

Where the format changes on purpose, add a directory for the new version and leave the old ones alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.checkpoint.manifest import VERSION
from tests.nameplate.checkpoint.samples import same

GOLDEN = Path(__file__).parents[2] / "golden" / "checkpoints"
NAME = "step_00001200"


def golden() -> store.Snapshot:
    """What the golden checkpoints hold, from arithmetic alone."""
    kernel = (np.arange(72, dtype=np.float32).reshape(3, 3, 1, 8) - 36) / 8
    return store.Snapshot(
        step=1200,
        epoch=3,
        position=640,
        weights={
            "backbone/stem_conv/kernel": kernel,
            "backbone/stem_conv/bias": np.arange(8, dtype=np.float32),
            "head/kernel": np.arange(20).reshape(2, 10).astype(ml_dtypes.bfloat16),
            "head/empty": np.zeros((0, 4), np.float16),
        },
        optimizer={"backbone/stem_conv/kernel@momentum": kernel * 2},
        state={
            "optimizer/iteration": np.array(1200, np.int64),
            "seeds/dropout": np.array([7, 11], np.uint32),
            "metrics/seen@replica0": np.array([True, False]),
        },
        metrics={"loss": 0.25, "val/accuracy": 0.984375},
        model='{"class_name": "Functional", "config": {"name": "golden"}}\n',
        config="run: golden\nseed: 7\n",
        about={"best": float("-inf"), "history": {"loss": [0.5, 0.25]}, "versions": {"nameplate": "0.1.0"}},
        classes={"backbone/stem_conv/kernel": "Conv2D", "backbone/stem_conv/bias": "Conv2D", "head/kernel": "Dense"},
    )


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_checkpoint_of_every_version_loads(version: int) -> None:
    expected = golden()
    path = GOLDEN / f"v{version}" / NAME
    assert store.verify(path) == []
    with store.open(path) as opened:
        for group, arrays in expected.groups().items():
            back = opened.groups()[group]
            assert set(back) == set(arrays)
            assert all(same(back[name], arrays[name]) for name in arrays)
        assert (opened.model, opened.config) == (expected.model, expected.config)
        content = opened.manifest
        assert (content.step, content.epoch, content.position) == (1200, 3, 640)
        assert (content.metrics, content.about) == (expected.metrics, expected.about)
        assert content.tensors["optimizer"]["backbone/stem_conv/kernel@momentum"].layer_class == "Conv2D"


def test_todays_checkpoint_is_the_golden_one_byte_for_byte(tmp_path: Path) -> None:
    path = store.save(tmp_path, golden())
    reference = GOLDEN / f"v{VERSION}" / NAME
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {
        file.name: file.read_bytes() for file in reference.iterdir()
    }


def test_a_read_only_checkpoint_loads(tmp_path: Path) -> None:
    path = tmp_path / NAME
    shutil.copytree(GOLDEN / "v1" / NAME, path)
    for file in path.iterdir():
        file.chmod(0o400)
    path.chmod(0o500)
    assert store.verify(path) == []
    path.chmod(0o700)
