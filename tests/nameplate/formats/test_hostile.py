"""Hostile files are refused, and a canary file beside them stays untouched."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from safetensors.numpy import save_file

import nameplate
from nameplate.errors import FileFormatError
from nameplate.formats import open_weights
from nameplate.formats.hdf5 import Hdf5File
from tests.nameplate.formats.files import sharded

GROUP = "layers/dense/vars"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file outside, with numbers in it that nobody may see."""
    path = tmp_path / "outside" / "canary.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["secret"] = np.full((3,), 42, "float32")
    (path.parent / "canary.txt").write_text("1\n2\n3\n")
    os.utime(path, (1, 1))
    return path


def untouched(canary: Path) -> bool:
    """Tell whether nobody has written a canary; `relatime` would show a first read, too."""
    found = canary.stat()
    return (
        found.st_mtime == 1
        and found.st_atime == 1
        and sorted(each.name for each in canary.parent.iterdir())
        == [
            "canary.h5",
            "canary.txt",
        ]
    )


def soft(group: Any, canary: Path) -> None:
    group["0"] = h5py.SoftLink("/elsewhere")


def external_link(group: Any, canary: Path) -> None:
    group["0"] = h5py.ExternalLink(str(canary), "/secret")


def external_data(group: Any, canary: Path) -> None:
    group.create_dataset("0", (3,), "f4", external=[(str(canary), 0, 12)])


def virtual(group: Any, canary: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(canary), "secret", (3,))
    group.create_virtual_dataset("0", layout)


def unwritten(group: Any, canary: Path) -> None:
    group.create_dataset("0", (1 << 40,), "f4")


def squeezed(group: Any, canary: Path) -> None:
    group.create_dataset("0", (1 << 29,), "f4", chunks=(1 << 20,), compression="gzip", fillvalue=0)


def deep(group: Any, canary: Path) -> None:
    for _ in range(80):
        group = group.create_group("a")


def circle(group: Any, canary: Path) -> None:
    group["again"] = group.file["/"]


HDF5: dict[str, Callable[[Any, Path], None]] = {
    make.__name__: make for make in (soft, external_link, external_data, virtual, unwritten, squeezed, deep, circle)
}


def hdf5(path: Path, make: Callable[[Any, Path], None], canary: Path) -> Path:
    with h5py.File(path, "w") as file:
        make(file.create_group(GROUP), canary)
    return path


@pytest.mark.parametrize("make", HDF5.values(), ids=HDF5.keys())
def test_hdf5_that_reaches_out_or_blows_up_is_refused_alone_and_in_an_archive(
    make: Callable[[Any, Path], None], canary: Path, tmp_path: Path
) -> None:
    path = hdf5(tmp_path / "m.weights.h5", make, canary)
    archive = tmp_path / "m.keras"
    keras.Sequential([keras.Input((2,)), layers.Dense(1, name="a")], name="m").save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good, zipfile.ZipFile(archive, "w") as bad:
        for name in ("config.json", "metadata.json"):
            bad.writestr(name, good.read(name))
        bad.write(path, "model.weights.h5")

    for file in (path, archive):
        with pytest.raises(FileFormatError, match=r"refused|deeper"):
            open_weights(file)
    for trust in (False, True):
        with pytest.raises(FileFormatError, match=r"refused|deeper"):
            nameplate.load(archive, trust=trust)
    assert untouched(canary)


def test_the_process_that_parses_hdf5_can_open_no_other_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file[f"{GROUP}/0"] = np.zeros(3, "float32")
    with Hdf5File(tmp_path / "m.weights.h5") as file:
        limits = Path(f"/proc/{file._process.pid}/limits").read_text()
    bounds = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}

    assert bounds["Max open files"] == ["0", "0"]
    assert bounds["Max file size"] == ["0", "0"]
    assert bounds["Max address space"][0] == str(4 << 30)


def test_objects_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        group = file.create_group(GROUP)
        group.attrs["name"] = "dense"
        group["0"] = np.array([b"text"], dtype=h5py.string_dtype())
    with open_weights(tmp_path / "m.weights.h5") as arrays, pytest.raises(FileFormatError, match="not numbers"):
        arrays["dense/kernel"]


@pytest.mark.parametrize("cut", [10, 100, 1000, 3000])
def test_a_file_that_ends_early_is_told(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file[f"{GROUP}/0"] = np.zeros(1000, "float32")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FileFormatError, match=r"m\.weights\.h5"), open_weights(path) as arrays:
        dict(arrays)


ZIPS: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "slip": lambda archive: archive.writestr("../outside/evil", "x"),
    "absolute": lambda archive: archive.writestr("/tmp/evil", "x"),
    "backslash": lambda archive: archive.writestr("assets\\..\\..\\evil", "x"),
    "nested_slip": lambda archive: archive.writestr("assets/../../outside/evil", "x"),
    "direction": lambda archive: archive.writestr("assets/\u202etxt.exe", "x"),
    "link": lambda archive: archive.writestr(_link(), "/etc/passwd"),
    "bomb": lambda archive: archive.writestr("assets/zeros", bytes(70 << 20), zipfile.ZIP_DEFLATED),
}


def _link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("assets/lookup")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("add", ZIPS.values(), ids=ZIPS.keys())
def test_an_archive_that_leaves_its_directory_or_blows_up_is_refused(
    add: Callable[[zipfile.ZipFile], None], canary: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((2,)), layers.Dense(1, name="a")], name="m").save(path)
    with zipfile.ZipFile(path, "a") as archive:
        add(archive)

    for read in (open_weights, nameplate.load):
        with pytest.raises(FileFormatError, match=r"m\.keras is refused"):
            read(path)
    assert untouched(canary)


def test_an_archive_with_a_member_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((2,)), layers.Dense(1, name="a")], name="m").save(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    with pytest.raises(FileFormatError, match=r"'config\.json' appears twice"):
        nameplate.load(path)


@pytest.mark.parametrize("shard", ["../outside/x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x\x00"])
def test_an_index_that_points_elsewhere_is_refused(shard: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(FileFormatError, match="plain names"):
        open_weights(index)


def test_a_shard_that_is_a_link_out_is_refused_but_a_download_cache_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    cache = tmp_path / "models--x"
    for folder in (outside, cache / "snapshots" / "1", cache / "blobs", tmp_path / "plain"):
        folder.mkdir(parents=True)
    tensors = {"a/kernel": np.ones(2, "float32")}
    save_file(tensors, outside / "s.safetensors")
    save_file(tensors, cache / "blobs" / "hash")
    for folder, target in (
        (tmp_path / "plain", outside / "s.safetensors"),
        (cache / "snapshots" / "1", cache / "blobs" / "hash"),
    ):
        sharded(folder, tensors, shards=1)
        shard = folder / "model-00001-of-00001.safetensors"
        shard.unlink()
        shard.symlink_to(target)

    with pytest.raises(FileFormatError, match="is a link to"):
        open_weights(tmp_path / "plain")
    assert open_weights(cache / "snapshots" / "1")["a/kernel"].sum() == 2


def test_a_saved_model_with_links_or_an_impossible_index_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(a=tf.Variable(np.ones(5, "float32"))).write(str(tmp_path / "c"))
    data = tmp_path / "c.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-30])
    with pytest.raises(FileFormatError, match="do not fit into"):
        open_weights(tmp_path / "c.index")
    data.unlink()
    (tmp_path / "real").write_bytes(whole)
    data.symlink_to(tmp_path / "real")
    with pytest.raises(FileFormatError, match="is a link"):
        open_weights(tmp_path / "c.index")


@pytest.mark.parametrize("place", [0, 5, 20, 60, 100, -60, -20, -5])
def test_an_index_of_tensorflows_with_a_wrong_byte_never_leads_astray(place: int, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(a=tf.Variable(np.ones(5, "float32"))).write(str(tmp_path / "c"))
    index = bytearray((tmp_path / "c.index").read_bytes())
    index[place] ^= 0xFF
    (tmp_path / "c.index").write_bytes(bytes(index))
    with contextlib.suppress(FileFormatError), open_weights(tmp_path / "c.index") as arrays:
        assert sum(value.nbytes for value in arrays.values()) <= 20


# ---- configurations ---------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Save a small model whose configuration someone changed."""
    x = keras.Input((2,), name="x")
    keras.Model(x, layers.Dense(1, name="a")(x), name="m").save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def as_class(module: str | None, class_name: str, /, **inner: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        layer = config["config"]["layers"][1]
        layer.update(module=module, class_name=class_name, registered_name=None if module else class_name)
        layer["config"] = {"name": "a", **inner}

    return change


def activation(module: str, function: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        spec = {"module": module, "class_name": "function", "config": function, "registered_name": function}
        config["config"]["layers"][1]["config"]["activation"] = spec

    return change


DANGERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "lambda": (
        as_class("keras.layers", "Lambda", function={"class_name": "__lambda__", "config": {"code": "x"}}),
        "a: a Lambda is code",
    ),
    "saved_model": (as_class("keras.layers", "TFSMLayer", filepath="/tmp/evil"), "a: a TFSMLayer is code"),
    "pickle": (as_class("keras.layers", "TorchModuleWrapper", module="evil"), "TorchModuleWrapper is code"),
    "vocabulary": (
        as_class("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
        "StringLookup would open '/etc/passwd' for its vocabulary",
    ),
    "download": (
        as_class("keras.utils", "get_file", fname="x", origin="http://localhost/x"),
        "keras.utils.get_file is neither a layer",
    ),
    "loader": (
        as_class("keras.saving", "load_model", filepath="x", safe_mode=False),
        "keras.saving.load_model is neither a layer",
    ),
    "application": (
        as_class("keras.src.applications.convnext", "ConvNeXtTiny", weights="imagenet"),
        "keras.src.applications.convnext.ConvNeXtTiny is neither a layer",
    ),
    "unlock": (
        activation("keras.config", "enable_unsafe_deserialization"),
        "enable_unsafe_deserialization|keras.config",
    ),
}


@pytest.mark.parametrize(("change", "told"), DANGERS.values(), ids=DANGERS.keys())
def test_a_configuration_that_would_do_more_than_build_is_not_built_but_its_weights_are_read(
    change: Callable[[dict[str, Any]], None], told: str, tmp_path: Path
) -> None:
    path = rewritten(tmp_path / "m.keras", change)

    with pytest.raises(FileFormatError, match=f"(?s){told}.*trust=True only if"):
        nameplate.load(path)
    assert nameplate.load(path, only=["a"])["a/0" if "a/0" in open_weights(path) else "a/kernel"].shape == (2, 1)


@pytest.mark.parametrize("name", [name for name in DANGERS if name != "vocabulary"])
def test_trust_still_leaves_keras_safe_mode_in_force(name: str, canary: Path, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "m.keras", DANGERS[name][0])

    with pytest.raises(FileFormatError, match="cannot be loaded"):
        nameplate.load(path, trust=True)
    assert untouched(canary)


def test_layers_that_keras_keeps_with_its_applications_need_no_trust(tmp_path: Path) -> None:
    image = keras.Input((4, 4, 3), name="image")
    x = LayerScale(0.1, 3, name="gamma")(image)
    x = StochasticDepth(0.1, name="depth")(CustomScaleLayer(0.2, name="mix")([image, x]))
    model = keras.Model(image, x, name="net")
    model.save(tmp_path / "m.keras")
    loaded = nameplate.load(tmp_path / "m.keras")

    assert type(nameplate.layer(loaded, "gamma")) is LayerScale
    assert np.array_equal(loaded(np.ones((1, 4, 4, 3))), model(np.ones((1, 4, 4, 3))))


STRANGERS: dict[str, Callable[[dict[str, Any]], None]] = {
    "module": as_class("os", "system", command="id"),
    "hydra": as_class("hydra.utils", "instantiate", _target_="os.system"),
    "registered": as_class(None, "Mine"),
}


@pytest.mark.parametrize("change", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_class_that_is_missing_is_named_with_the_argument_that_would_supply_it(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    path = rewritten(tmp_path / "m.keras", change)
    for trust in (False, True):
        with pytest.raises(FileFormatError, match=r"Pass custom_objects=\{'(system|instantiate|Mine)': "):
            nameplate.load(path, trust=trust)


class Mine(layers.Dense):
    """A class that is given."""


def test_a_class_that_is_given_is_used_and_its_weights_are_read_without_it(tmp_path: Path) -> None:
    x = keras.Input((2,), name="x")
    model = keras.Model(x, Mine(1, name="a")(x), name="m")
    model.save(tmp_path / "m.keras")

    with pytest.raises(FileFormatError, match=r"custom_objects=\{'Mine': Mine\}"):
        nameplate.load(tmp_path / "m.keras")
    assert isinstance(nameplate.layer(nameplate.load(tmp_path / "m.keras", custom_objects={"Mine": Mine}), "a"), Mine)
    assert np.array_equal(nameplate.load(tmp_path / "m.keras", only=["a"])["a/0"], nameplate.read(model)["a/kernel"])


def test_a_keras_2_lambda_is_refused(tmp_path: Path) -> None:
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "s",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 2], "name": "x"}},
                {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEA", None, None]}},
            ],
        },
    }
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = [b"x", b"l"]
    with pytest.raises(FileFormatError, match="l: a Lambda is code"):
        nameplate.load(tmp_path / "m.h5")
    with pytest.raises(FileFormatError, match="cannot be loaded"):
        nameplate.load(tmp_path / "m.h5", trust=True)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", '"x"', "\xff"])
def test_a_configuration_that_is_not_a_json_object_is_reported(text: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", text.encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"config\.json"):
        nameplate.load(tmp_path / "m.keras")
