"""`experiment=finetune`: a pretrained backbone in a configured run, in its stages, on resume, and rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nameplate
from nameplate.section import ConfigError
from tests.nameplate.training.test_resuming import cut
from tests.trainer.running import about, assert_same, content, train
from trainer.job.model import rebuild

pytestmark = pytest.mark.usefixtures("strategy")

SMALL = ["model.name=MobileNet", "model.arguments={alpha: 0.25}"]


def make_images(root: Path, *, count: int = 8, side: int = 20) -> Path:
    """Write PNG files of noise, reddish and bluish, a folder a class; every third one to validate on."""
    rng = np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        for number in range(count):
            folder = root / ("val" if number % 3 == 2 else "train") / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 90, (side, side, 3))
            pixels[..., channel] += 150
            keras.utils.save_img(folder / f"{number}.png", pixels, scale=False)
    return root


def make_weights(path: Path) -> dict[str, np.ndarray]:
    """Write the weights of a small MobileNet as Keras does, and return them by name."""
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    model.save_weights(path)
    return nameplate.read(model)


def backbone_of(run: Path, step: int) -> dict[str, np.ndarray]:
    start = "weights:backbone/"
    return {name.removeprefix(start): value for name, value in content(run, step).items() if name.startswith(start)}


def test_the_head_learns_alone_then_all_of_it_and_resume_needs_no_file(tmp_path: Path) -> None:
    file = tmp_path / "mobilenet.weights.h5"
    given, root = make_weights(file), make_images(tmp_path / "flowers")
    options: Any = [
        "experiment=finetune",
        "strategy=single",
        *SMALL,
        f"model.weights={file}",
        f"data.root={root}",
        *("data.height=32", "data.width=32", "optimizer.rates={backbone: 1e-2}", "fit.epochs=4"),
        *("checkpoint.every_steps=1", "checkpoint.keep_last=9", "run=a"),
    ]
    report = train(tmp_path, *options)
    steps = report.steps // 4 * 3  # of the first stage
    for name, value in backbone_of(tmp_path / "a", steps).items():  # in the first stage its statistics stay too
        assert value.tobytes() == given[name].tobytes(), name
    later = backbone_of(tmp_path / "a", report.steps)
    same = [name for name, value in later.items() if value.tobytes() == given[name].tobytes()]
    assert same == []
    origins = about(tmp_path / "a")["origins"]
    assert origins["backbone/conv1/kernel"] == {"file": str(file), "name": "conv1/kernel"}
    assert "label/kernel" not in origins

    whole = content(tmp_path / "a")
    file.unlink()
    cut(tmp_path / "a", steps + 1)
    train(tmp_path, *options)
    assert_same(content(tmp_path / "a"), whole)

    rebuilt = rebuild(str(tmp_path / "a")).model
    x = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    expected = nameplate.load(tmp_path / "a", which="latest")(x)
    np.testing.assert_allclose(rebuilt(x), expected, rtol=1e-6)


def test_what_cannot_begin_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    make_weights(tmp_path / "own.weights.h5")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "bytes.npz", x=rng.integers(0, 256, (16, 32, 32, 3), np.uint8), y=np.arange(16) % 2)
    options = ["model=applications", *SMALL, "data=arrays", f"data.path={tmp_path / 'bytes.npz'}", "run=a"]
    with pytest.raises(ConfigError, match=r"images have values from 0 to 255(?s:.*)data.scale=0.00392157"):
        train(tmp_path, *options, f"model.weights={tmp_path / 'own.weights.h5'}")
    with pytest.raises(ConfigError, match=r"data.standardize: the model scales images as its weights need it"):
        train(tmp_path, *options, "data.standardize=true", f"model.weights={tmp_path / 'own.weights.h5'}")
    with pytest.raises(ConfigError, match=r"model.weights: no file at .*ow.weights.h5'. Did you mean 'own.weights.h5'"):
        train(tmp_path, *options, "data.scale=0.00392157", f"model.weights={tmp_path / 'ow.weights.h5'}")
    with pytest.raises(nameplate.NameplateError, match="'bakbone' Did you mean 'backbone'"):
        train(tmp_path, *options, "init.freeze=[bakbone]")
    assert not (tmp_path / "a").exists()
