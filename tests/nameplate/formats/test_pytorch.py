"""PyTorch's weights by name, in the layout of each role, proved by the outputs of both frameworks."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats import open_weights
from nameplate.formats.pytorch_weights import torchvision_resnet
from nameplate.io.load_weights import LoadingError
from trainer.models import resnet

torch: Any = pytest.importorskip("torch", reason="needs PyTorch: pip install torch==2.13.0")
nn = torch.nn


def net(*stack: Any, shape: tuple[int | None, ...], dtype: str = "float32") -> keras.Model:
    x = y = keras.Input(shape, name="x", dtype=dtype)
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y, name="net")


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 1, -1)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype("float32")


def trained_norm(module: Any) -> Any:
    """Give a batch norm statistics that are not those it began with."""
    rank = {1: (8, 4), 2: (8, 4, 3, 3)}[1 if isinstance(module, nn.BatchNorm1d) else 2]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    module.train()(torch.randn(*rank) * 3 + 1)
    return module.eval()


KERNELS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "dense": (lambda: nn.Linear(4, 3), lambda: layers.Dense(3, name="m"), (2, 4)),
    "dense_no_bias": (lambda: nn.Linear(4, 3, bias=False), lambda: layers.Dense(3, use_bias=False, name="m"), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), lambda: layers.Conv1D(6, 3, name="m"), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2)), lambda: layers.Conv2D(6, (3, 2), name="m"), (2, 4, 7, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 5, (1, 2, 3)), lambda: layers.Conv3D(5, (1, 2, 3), name="m"), (2, 4, 4, 5, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: layers.Conv2D(6, 3, groups=2, name="m"), (2, 4, 7, 8)),
    "depthwise": (
        lambda: nn.Conv2d(4, 8, (3, 2), groups=4),
        lambda: layers.DepthwiseConv2D((3, 2), depth_multiplier=2, name="m"),
        (2, 4, 7, 8),
    ),
    "depthwise1d": (
        lambda: nn.Conv1d(4, 12, 3, groups=4),
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=3, name="m"),
        (2, 4, 7),
    ),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2),
        lambda: layers.Conv2DTranspose(6, (3, 2), strides=2, name="m"),
        (2, 4, 5, 6),
    ),
    "transposed1d": (
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2),
        lambda: layers.Conv1DTranspose(6, 3, strides=2, name="m"),
        (2, 4, 5),
    ),
    "batch_norm": (
        lambda: trained_norm(nn.BatchNorm2d(4)),
        lambda: layers.BatchNormalization(epsilon=1e-5, name="m"),
        (2, 4, 5, 6),
    ),
    "group_norm": (
        lambda: nn.GroupNorm(2, 4),
        lambda: layers.GroupNormalization(2, epsilon=1e-5, name="m"),
        (2, 4, 5, 6),
    ),
}


@pytest.mark.parametrize("role", KERNELS)
def test_a_layer_of_each_role_computes_what_pytorch_computes_and_goes_back_bit_for_bit(
    role: str, tmp_path: Path
) -> None:
    make, keras_layer, shape = KERNELS[role]
    torch.manual_seed(1)
    module = nn.ModuleDict({"m": make()}).eval()
    torch.save(module.state_dict(), tmp_path / "m.pt")
    x = drawn(*shape)
    model = net(keras_layer(), shape=channels_last(x).shape[1:])
    report = nameplate.load_weights(model, tmp_path / "m.pt")

    expected = module["m"](torch.tensor(x)).detach().numpy()
    assert np.allclose(model(channels_last(x), training=False), channels_last(expected), atol=1e-5)
    assert set(report.plan.counts()) <= {"renamed", "taken", "dropped"}
    with open_weights(tmp_path / "m.pt") as arrays:
        counters = {name: arrays[name] for name in arrays if name.endswith("num_batches_tracked")}
    nameplate.save(model, tmp_path / "back.pt", counters=counters)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == module.state_dict().keys()
    assert all(torch.equal(value, back[name]) for name, value in module.state_dict().items())


SEQUENCES: dict[str, tuple[Any, Any]] = {
    "lstm": (lambda: nn.LSTM(4, 3, batch_first=True), lambda: layers.LSTM(3, return_sequences=True, name="m")),
    "gru": (lambda: nn.GRU(4, 3, batch_first=True), lambda: layers.GRU(3, return_sequences=True, name="m")),
    "layer_norm": (lambda: nn.LayerNorm(4), lambda: layers.LayerNormalization(epsilon=1e-5, name="m")),
}


@pytest.mark.parametrize("role", SEQUENCES)
def test_recurrent_layers_compute_what_pytorch_computes(role: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.ModuleDict({"m": SEQUENCES[role][0]()})
    torch.save(module.state_dict(), tmp_path / "m.pt")
    model = net(SEQUENCES[role][1](), shape=(5, 4))
    nameplate.load_weights(model, tmp_path / "m.pt")
    x = drawn(2, 5, 4)

    expected = module["m"](torch.tensor(x))
    expected = (expected[0] if isinstance(expected, tuple) else expected).detach().numpy()
    assert np.allclose(model(x), expected, atol=1e-5)
    nameplate.save(model, tmp_path / "back.pt")
    module.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))
    again = module["m"](torch.tensor(x))
    assert np.allclose((again[0] if isinstance(again, tuple) else again).detach().numpy(), expected, atol=1e-6)


def test_attention_with_heads_computes_what_pytorch_computes_and_goes_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.ModuleDict({"m": nn.MultiheadAttention(6, 3, batch_first=True)})
    nn.init.normal_(module["m"].in_proj_bias)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    x = keras.Input((5, 6), name="x")
    model = keras.Model(x, layers.MultiHeadAttention(3, 2, name="m")(x, x), name="net")
    nameplate.load_weights(model, tmp_path / "m.pt")
    batch = drawn(2, 5, 6)

    tensor = torch.tensor(batch)
    assert np.allclose(model(batch), module["m"](tensor, tensor, tensor)[0].detach().numpy(), atol=1e-5)
    nameplate.save(model, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(torch.equal(value, back[name]) for name, value in module.state_dict().items())


def test_both_directions_and_several_layers_of_an_lstm_are_rules(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    stack = [layers.Bidirectional(layers.LSTM(3, return_sequences=True), name=name) for name in ("low", "high")]
    model = net(*stack, shape=(5, 4))
    rules = [
        f"re:(.*)_l{index}{suffix}={name}/{side}_lstm/\\1_l0"
        for index, name in enumerate(("low", "high"))
        for side, suffix in (("forward", ""), ("backward", "_reverse"))
    ]
    nameplate.load_weights(model, tmp_path / "m.pt", rename=rules)
    x = drawn(2, 5, 4)

    assert np.allclose(model(x), module(torch.tensor(x))[0].detach().numpy(), atol=1e-5)


def test_an_embedding_is_looked_up_alike(tmp_path: Path) -> None:
    module = nn.ModuleDict({"m": nn.Embedding(7, 3)})
    torch.save(module.state_dict(), tmp_path / "m.pt")
    model = net(layers.Embedding(7, 3, name="m"), shape=(4,), dtype="int32")
    nameplate.load_weights(model, tmp_path / "m.pt")

    ids = np.array([[0, 6, 2, 2]])
    assert np.array_equal(model(ids), module["m"](torch.tensor(ids)).detach().numpy())


class Block(nn.Module):  # type: ignore[misc,name-defined]
    """A residual block as He et al. describe it, with torchvision's names of its parts."""

    def __init__(self, inside: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outside = width * 4 if bottleneck else width
        steps = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        sizes = [inside, *[width] * (len(steps) - 1), outside]
        self.count = len(steps)
        for index, (kernel, step) in enumerate(steps):
            conv = nn.Conv2d(sizes[index], sizes[index + 1], kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{index + 1}", conv)
            setattr(self, f"bn{index + 1}", nn.BatchNorm2d(sizes[index + 1]))
        self.downsample = None
        if stride != 1 or inside != outside:
            project = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(outside))

    def forward(self, x: Any) -> Any:
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            y = torch.relu(y) if index < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):  # type: ignore[misc,name-defined]
    """A residual network in PyTorch alone, whose state dictionary has torchvision's names."""

    def __init__(self, blocks: tuple[int, ...], width: int, classes: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inside = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            made = []
            for index in range(count):
                made.append(Block(inside, inner, 2 if stage and not index else 1, bottleneck=bottleneck))
                inside = inner * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(inside, classes)

    def forward(self, x: Any) -> Any:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(("depth", "blocks", "bottleneck"), [(18, (2, 2, 2, 2), False), (50, (3, 4, 6, 3), True)])
def test_a_residual_network_of_pytorchs_computes_the_same_here_and_goes_back_bit_for_bit(
    depth: int, blocks: tuple[int, ...], bottleneck: bool, tmp_path: Path
) -> None:
    torch.manual_seed(depth)
    theirs = ResNet(blocks, 8, 5, bottleneck=bottleneck).train()
    with torch.no_grad():
        theirs(torch.randn(4, 3, 64, 64))
    torch.save(theirs.eval().state_dict(), tmp_path / "resnet.pth")
    ours = resnet.build({"image": (64, 64, 3)}, {"label": 5}, depth=depth, width=8)
    modules = torchvision_resnet(nameplate.variables(ours))
    report = nameplate.load_weights(ours, tmp_path / "resnet.pth", rename=modules)

    x = drawn(2, 3, 64, 64)
    expected = theirs(torch.tensor(x)).detach().numpy()
    assert np.allclose(ours(channels_last(x), training=False), expected, atol=1e-5 * abs(expected).max())
    norms = sum(name.endswith("num_batches_tracked") for name in theirs.state_dict())
    assert report.plan.counts() == {"renamed": len(nameplate.variables(ours)), "dropped": norms}

    with open_weights(tmp_path / "resnet.pth") as arrays:
        counters = {name: arrays[name] for name in arrays if name.endswith("num_batches_tracked")}
    nameplate.save(ours, tmp_path / "back.pth", modules=modules, counters=counters)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, back[name]) for name, value in theirs.state_dict().items())


def test_what_has_no_place_is_told_with_both_sides(tmp_path: Path) -> None:
    torch.save({"m.weight": torch.zeros(3, 5), "n.weight": torch.zeros(1)}, tmp_path / "m.pt")
    with pytest.raises(LoadingError) as told:
        nameplate.load_weights(net(layers.Dense(3, name="m"), shape=(4,)), tmp_path / "m.pt")

    assert "m/kernel: float32 5 x 3 in the source, float32 4 x 3 in the target" in str(told.value)
    assert "missing    m/bias" in str(told.value)
    assert "unexpected n.weight" in str(told.value)


def test_a_layer_without_a_layout_is_not_written(tmp_path: Path) -> None:
    model = net(layers.SeparableConv2D(2, 3, name="m"), shape=(8, 8, 3))
    with pytest.raises(FileFormatError, match="m/depthwise_kernel of a SeparableConv2D"):
        nameplate.save(model, tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


class _Scaled(keras.Model):
    """A functional subclass with a variable of its own."""

    def __init__(self) -> None:
        images = keras.Input((4,))
        super().__init__(images, layers.Dense(2, name="head")(images), name="net")
        self.scale = self.add_weight(name="scale", shape=(2,))


def test_a_variable_of_the_model_itself_is_not_written_and_called_that(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="scale, a variable of the model itself"):
        nameplate.save(_Scaled(), tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


def test_views_lists_half_numbers_and_parameters_are_read_as_pytorch_reads_them(tmp_path: Path) -> None:
    line = torch.arange(24.0).reshape(4, 6)
    state = {
        "model": {"transposed": line.t(), "row": line[2], "every_other": line[::2, 1::2], "scalar": line[0, 3]},
        "half": [line.to(torch.bfloat16), (line.to(torch.float16),)],
        "parameter": nn.Parameter(line),
        "eight": line.to(torch.float8_e4m3fn),
        "flags": line > 3,
        "epoch": 3,
        "repeated": torch.ones(1).expand(4, 2),
        "none": torch.zeros(0, 3),
    }
    torch.save(state, tmp_path / "m.pt")
    with open_weights(tmp_path / "m.pt") as arrays:
        assert set(arrays) == {
            *("model/transposed", "model/row", "model/every_other", "model/scalar", "half/0", "half/1/0"),
            *("parameter", "eight", "flags", "repeated", "none"),
        }
        assert np.array_equal(arrays["model/transposed"], line.t().numpy())
        assert np.array_equal(arrays["model/every_other"], line[::2, 1::2].numpy())
        assert arrays["model/scalar"] == 3
        assert arrays.forms["half/0"].dtype == "bfloat16"
        assert np.array_equal(arrays["eight"].astype("float32"), state["eight"].float().numpy())  # type: ignore[attr-defined]
        assert np.array_equal(arrays["repeated"], np.ones((4, 2)))
        assert arrays["none"].shape == (0, 3)


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (open, (str(self.canary), "w"))


def zipped(path: Path, code: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return path


def test_a_pickle_that_would_run_code_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"a": torch.ones(2), "b": Evil(canary)}, tmp_path / "m.pt")

    with pytest.raises(FileFormatError, match=r"would import '(io|_io|builtins)\.open'"):
        open_weights(tmp_path / "m.pt")
    with pytest.raises(FileFormatError, match="is refused"):
        nameplate.load(tmp_path / "m.pt", trust=True)
    assert not canary.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(X\x02\x00\x00\x00idtR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
        b"(X\x02\x00\x00\x00idios\nsystem\n.",  # INST
        b"\x82\x01.",  # EXT1
        b"ctorch\nload\n(X\x01\x00\x00\x00xtR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01K\x01K\x01tR.",
        b"ccollections\nOrderedDict\n(X\x01\x00\x00\x00xtR.",
        b"\x80\x02}q\x00h\x01.",
        b"X\xff\xff\xff\xffabc.",
        b"(" * 200_000,
        b"]q\x00" + b"h\x00a" * 10,  # a list in itself, that never ends
        b"",
        b"\x80\x63.",
        b"K\x01b.",
        b"t.",
    ],
)
def test_hostile_pickles_are_refused(code: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"m\.pt"):
        open_weights(zipped(tmp_path / "m.pt", code))


def test_lists_in_lists_that_double_are_given_up(tmp_path: Path) -> None:
    code = b"]q\x00" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60))
    with pytest.raises(FileFormatError, match=r"more than \d+ values"):
        open_weights(zipped(tmp_path / "m.pt", code + b"."))


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(4.0)}, buffer)
    buffer.seek(0)
    with zipfile.ZipFile(buffer) as archive:
        code = archive.read("archive/data.pkl").replace(b"K\x04\x85", b"M\xff\x0f\x85")
    with pytest.raises(FileFormatError, match=r"a: shape \(4095,\) and strides \(1,\) exceed its 16 bytes"):
        open_weights(zipped(tmp_path / "m.pt", code, archive__data__0=bytes(16)))


def test_whole_modules_and_older_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": 1}))

    with pytest.raises(FileFormatError, match=r"would import 'torch\.nn.*save its state_dict"):
        open_weights(tmp_path / "module.pt")
    for name in ("old.pt", "plain.pt"):
        with pytest.raises(FileFormatError, match="cannot be read as a PyTorch file"):
            open_weights(tmp_path / name)


def test_reading_needs_no_pytorch(tmp_path: Path) -> None:
    import subprocess
    import sys

    torch.save({"a": torch.arange(3.0)}, tmp_path / "m.pt")
    code = (
        "import sys, json; from nameplate.formats import open_weights\n"
        "print(json.dumps(open_weights(sys.argv[1])['a'].tolist()))\n"
        "assert not {'torch', 'keras', 'tensorflow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.pt")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout) == [0, 1, 2]
