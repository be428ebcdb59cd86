"""PyTorch's weights in plans, in files with keys of every kind, and behind a flattened picture: outputs of both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.checkpoint import save_tensors
from nameplate.formats.pytorch_weights import ROWS_UNKNOWN
from nameplate.io.channel_order import rows_by_layer
from nameplate.io.load_weights import OrderWarning, layout_of

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch==2.13.0")
nn = torch.nn


def state_of(module: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def vgg(flat: Any = None) -> tuple[Any, keras.Model]:
    """Return the two halves of a small VGG: convolutions, a flattened picture of 3 x 2 pixels, a batch norm, Dense."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.BatchNorm1d(24),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 7),
    )
    module.train()(torch.randn(8, 3, 12, 8) * 3 + 1)  # statistics that are not those it began with
    x = image = keras.Input((12, 8, 3), name="image")
    for place, filters in ((0, 5), (3, 4)):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{place}")(x)
        x = layers.MaxPooling2D(name=f"pool{place}")(x)
    x = (flat or layers.Flatten(name="flat"))(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    return module.eval(), keras.Model(image, layers.Dense(7, name="logits")(x), name="vgg")


VGG = {"0": "conv0", "3": "conv3", "8": "norm", "9": "hidden", "11": "logits"}


def agree(module: Any, model: keras.Model, *shape: int) -> bool:
    """Compare outputs to the precision with which two programs add up float32."""
    drawn = np.random.default_rng(0).normal(size=shape).astype("float32")
    theirs = module(torch.from_numpy(drawn)).detach().numpy()
    return np.allclose(model(np.moveaxis(drawn, 1, -1)), theirs, atol=1e-5, rtol=1e-4)


def by_loading(module: Any, model: keras.Model, rules: dict[str, str]) -> keras.Model:
    nameplate.load_weights(model, state_of(module), rename=rules)
    return model


def by_plan(module: Any, model: keras.Model, rules: dict[str, str]) -> keras.Model:
    plan = nameplate.plan(state_of(module), model, rules)
    assert plan.fits
    return nameplate.apply(plan, model)


@pytest.mark.parametrize("way", [by_loading, by_plan])
@pytest.mark.parametrize("flat", [lambda: layers.Flatten(name="flat"), lambda: layers.Reshape((24,), name="flat")])
def test_rows_behind_a_flattened_picture_are_in_keras_order(way: Any, flat: Any) -> None:
    module, model = vgg(flat())

    assert agree(module, way(module, model, VGG), 3, 3, 12, 8)


def test_a_plan_reports_reordered_rows_and_a_square_kernel_is_transposed(tmp_path: Path) -> None:
    module, model = vgg()
    torch.save(module.state_dict(), tmp_path / "vgg.pt")
    plan = nameplate.plan(tmp_path / "vgg.pt", model, VGG)
    lines = {line.target: line for line in plan.lines if line.target}

    assert lines["hidden/kernel"].conversion == "rows from 4 x 3 x 2 to 3 x 2 x 4"
    assert lines["hidden/kernel"].rule == "9=hidden"
    assert lines["logits/kernel"].detail == "11=logits"
    assert lines["norm/gamma"].source == "8.weight"
    assert np.array_equal(
        nameplate.read(nameplate.apply(plan, model))["logits/kernel"], module[11].weight.detach().numpy().T
    )
    assert plan.counts() == {"renamed": 12, "dropped": 1}


def test_what_pytorch_reads_back_is_what_it_wrote(tmp_path: Path) -> None:
    module, model = vgg()
    nameplate.save(
        by_loading(module, model, VGG), tmp_path / "back.pt", modules=VGG, counters={"8.num_batches_tracked": 1}
    )
    back = torch.load(tmp_path / "back.pt", weights_only=True)

    assert all(torch.equal(value, back[name]) for name, value in module.state_dict().items())


def branches() -> tuple[Any, keras.Model]:
    """Return a flattened picture beside a vector, in a nested model."""

    class Both(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 2, 3), nn.Linear(2 * 2 * 4 + 2, 5)

        def forward(self, x: Any) -> Any:
            maps = torch.relu(self.conv(x))
            return self.fc(torch.cat([maps.mean((2, 3)), maps.flatten(1)], 1))

    torch.manual_seed(1)
    pixels = keras.Input((4, 6, 3), name="pixels")
    stem = keras.Model(pixels, layers.Conv2D(2, 3, activation="relu", name="conv")(pixels), name="stem")
    image = keras.Input((4, 6, 3), name="image")
    maps = stem(image)
    parts = [layers.GlobalAveragePooling2D(name="pool")(maps), layers.Flatten(name="flat")(maps)]
    x = layers.Concatenate(name="both")(parts)
    return Both().eval(), keras.Model(image, layers.Dense(5, name="fc")(x), name="net")


def test_a_flattened_picture_may_lie_beside_other_features() -> None:
    module, model = branches()

    assert agree(module, by_loading(module, model, {"conv": "stem/conv"}), 3, 3, 4, 6)


def test_a_volume_and_a_sequence_behind_a_convolution_are_pictures_too() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(20, 20)).eval()
    x = series = keras.Input((6, 3), name="series")
    x = layers.Flatten(name="flat")(layers.Conv1D(4, 2, name="conv")(x))
    model = keras.Model(series, layers.Dense(20, name="fc")(x), name="net")

    assert agree(module, by_loading(module, model, {"0": "conv", "2": "fc"}), 3, 3, 6)


def test_a_rule_that_gives_keras_name_does_not_change_the_layout() -> None:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(4, name="fc")(x), name="net")
    rules = {"0.weight": "fc/kernel", "0.bias": "fc/bias"}
    for way in (by_loading, by_plan):
        made = way(module, model, {key.replace(".", "/") if way is by_plan else key: new for key, new in rules.items()})
        assert np.array_equal(nameplate.read(made)["fc/kernel"], module[0].weight.detach().numpy().T)


def test_columns_that_become_a_picture_are_in_keras_order(tmp_path: Path) -> None:
    torch.manual_seed(6)
    module = nn.Sequential(
        nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Unflatten(1, (4, 3, 2)), nn.Conv2d(4, 2, 2), nn.Flatten()
    )
    module.train()(torch.randn(8, 24) * 3 + 1)
    noise = keras.Input((24,), name="noise")
    x = layers.BatchNormalization(epsilon=1e-5, name="norm")(layers.Dense(24, name="fc")(noise))
    x = layers.Reshape((3, 2, 4), name="picture")(layers.ReLU(name="act")(x))
    model = keras.Model(noise, layers.Conv2D(2, 2, name="conv")(x), name="generator")
    rules = {"0": "fc", "1": "norm", "4": "conv"}
    made = by_plan(module.eval(), model, rules)
    drawn = np.random.default_rng(0).normal(size=(3, 24)).astype("float32")
    theirs = module(torch.from_numpy(drawn)).detach().numpy()

    assert np.allclose(np.moveaxis(np.asarray(made(drawn)), -1, 1).reshape(3, -1), theirs, atol=1e-5, rtol=1e-4)
    nameplate.save(made, tmp_path / "back.pt", modules=rules, counters={"1.num_batches_tracked": np.int64(1)})
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(torch.equal(value, back[name]) for name, value in module.state_dict().items())


def sequence() -> keras.Model:
    """Return a model for which the order of the features in PyTorch is unknown."""
    x = keras.Input((4, 5), name="x")
    return keras.Model(x, layers.Dense(20, name="fc")(layers.Flatten(name="flat")(x)), name="net")


class Coded(keras.Model):
    """A model whose code flattens a picture."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv, self.fc = layers.Conv2D(4, 3, name="conv"), layers.Dense(9, name="fc")

    def call(self, x: Any) -> Any:
        maps = self.conv(x)
        return self.fc(keras.ops.reshape(maps, (-1, 36)))


@pytest.mark.parametrize("coded", [False, True])
def test_an_order_that_cannot_be_determined_is_reported(coded: bool) -> None:
    model: keras.Model = Coded(name="coded") if coded else sequence()
    model(np.zeros((1, 5, 5, 3) if coded else (1, 4, 5), "float32"))
    state = {"fc.weight": model.get_layer("fc").kernel.numpy().T, "fc.bias": np.zeros(9 if coded else 20, "float32")}
    state |= {"conv.weight": np.zeros((4, 3, 3, 3), "float32"), "conv.bias": np.zeros(4, "float32")} if coded else {}
    detail = next(line.detail for line in nameplate.plan(state, model).lines if line.target == "fc/kernel")

    assert detail.startswith(ROWS_UNKNOWN)
    with pytest.warns(OrderWarning, match="fc/kernel: rows as they are"):
        nameplate.load_weights(model, state)


def test_nothing_is_reported_where_orders_are_the_same() -> None:
    x = keras.Input((8, 8, 1), name="x")
    image = layers.Flatten(name="flat")(x)  # one channel: both orders are one
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, name="conv")(x))
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    words = layers.Flatten(name="words")(layers.Embedding(9, 3, name="embed")(tokens))
    ends = [layers.Dense(2, name=f"out{place}")(each) for place, each in enumerate((image, pooled, words))]

    assert rows_by_layer(keras.Model([x, tokens], ends, name="net")) == {}


def test_one_key_without_a_dot_does_not_hide_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    state = {"fc.weight": module[0].weight.detach().numpy(), "fc.bias": module[0].bias.detach().numpy()}
    save_tensors(tmp_path / "w.safetensors", {**state, "cls_token": np.zeros((1, 1, 4), "float32")})
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(4, name="fc")(x), name="net")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = nameplate.load_weights(model, tmp_path / "w.safetensors", rename=["cls_token="])

    assert len(report.loaded) == 2
    assert np.array_equal(nameplate.read(model)["fc/kernel"], state["fc.weight"].T)
    assert layout_of(nameplate.read(model)) == "keras"


def test_a_subclass_of_a_layer_has_its_layout() -> None:
    class Head(layers.Dense):
        pass

    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(4, 4)).eval()
    x = keras.Input((4,), name="x")
    model = keras.Model(x, Head(4, name="fc")(x), name="net")

    assert agree(module, by_loading(module, model, {"0": "fc"}), 3, 4)
