from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import save_file

import nameplate
from nameplate.errors import NameplateError
from nameplate.io.save import load
from nameplate.naming import policy as policies
from nameplate.naming.policy import Policy
from tests.nameplate.naming_models import KINDS, Net, functional, nested, subclassed
from trainer.cli.names import main, read_table

BUILT = {name: make for name, make in KINDS.items() if name != "unbuilt"}


def automatic(path: Path) -> None:
    """Save a model with automatic names, in a nested container too."""
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, layers.Dense(3, name="dense_8")(x), name="body")
    outer = keras.Input((4,), name="image")
    keras.Model(outer, layers.Dense(2, name="dense_9")(inner(outer)), name="m").save(path)


@pytest.mark.parametrize("make", BUILT.values(), ids=BUILT.keys())
def test_a_keras_file_has_the_layers_of_its_model(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "m.keras")
    table = read_table(str(tmp_path / "m.keras"))

    assert {item.name for item in table.layers} == set(nameplate.layers(model))
    assert sum(array.size for array in table.arrays) == sum(int(np.prod(v.shape)) for v in model.weights)


@pytest.mark.parametrize("make", BUILT.values(), ids=BUILT.keys())
def test_a_plain_weights_file_has_them_too(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_weights(tmp_path / "m.weights.h5")
    table = read_table(str(tmp_path / "m.weights.h5"))
    layers_only = {name for name, layer in nameplate.layers(model).items() if isinstance(layer, keras.Layer)}

    assert {item.name for item in table.layers} <= layers_only
    assert {
        name.rpartition("/")[0] for name in nameplate.read(model) if "seed" not in name and "noise" not in name
    } <= {item.name for item in table.layers}


@pytest.mark.parametrize("make", [functional, nested])
def test_an_older_file_has_them_too(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "m.h5")
    table = read_table(str(tmp_path / "m.h5"))

    assert {item.name for item in table.layers} == set(nameplate.layers(model))
    assert {array.name for array in table.arrays} == {name for name in nameplate.read(model) if "/state" not in name}


def test_a_safetensors_file_of_ours_and_of_others(tmp_path: Path) -> None:
    save_file({"stem/kernel": np.zeros((2, 3), "float32")}, tmp_path / "a.safetensors")
    save_file({"layer1.0.conv1.weight": np.zeros((2, 3), "float32")}, tmp_path / "b.safetensors")

    assert [item.name for item in read_table(str(tmp_path / "a.safetensors")).layers] == ["stem"]
    assert [item.name for item in read_table(str(tmp_path / "b.safetensors")).layers] == ["layer1.0.conv1"]


def test_a_checkpoint_has_its_models_layers(tmp_path: Path) -> None:
    from nameplate import checkpoint as store

    model = functional()
    snapshot = store.Snapshot(
        *(3, 0, 0),
        nameplate.read(model),
        optimizer={},
        state={},
        metrics={},
        model=model.to_json(),
        config="",
        about={},
    )
    saved = store.save(tmp_path / "checkpoints", snapshot)
    table = read_table(str(tmp_path))

    assert [item.name for item in table.layers] == list(nameplate.layers(model))
    store.point(tmp_path / "checkpoints", "best", saved)
    assert read_table(str(tmp_path / "checkpoints" / "best")).layers == table.layers


def test_what_is_not_there_is_answered_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "m.keras").touch()

    with pytest.raises(NameplateError, match=r"nothing at .*nope\. .* has m\.keras\."):
        read_table(str(tmp_path / "nope"))


def test_the_exit_code_says_whether_the_names_are_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    functional().save(tmp_path / "good.keras")
    automatic(tmp_path / "bad.keras")

    assert main([str(tmp_path / "good.keras")]) == 0
    assert "5 layers, 73 parameters, 0 violations" in capsys.readouterr().out
    assert main([str(tmp_path / "bad.keras")]) == 1
    assert "body/dense_8" in capsys.readouterr().out
    assert main([str(tmp_path / "bad.keras"), "--policy", "off"]) == 0
    assert main([str(tmp_path / "none.keras")]) == 2
    assert main([str(tmp_path / "bad.keras"), "--policy", "strickt"]) == 2
    assert "strict" in capsys.readouterr().err


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    automatic(tmp_path / "bad.keras")
    main([str(tmp_path / "bad.keras"), "--json"])
    found = json.loads(capsys.readouterr().out)

    assert [layer["name"] for layer in found["layers"]] == ["image", "body", "body/x", "body/dense_8", "dense_9"]
    assert [(each["name"], each["rule"], each["suggestion"]) for each in found["violations"]] == [
        ("body/dense_8", "automatic", "dense1"),
        ("dense_9", "automatic", "dense1"),
    ]


def test_fix_writes_a_repaired_file(tmp_path: Path) -> None:
    automatic(tmp_path / "bad.keras")

    assert main([str(tmp_path / "bad.keras"), "--fix", str(tmp_path / "good.keras")]) == 1
    assert main([str(tmp_path / "good.keras")]) == 0
    old, new = load(tmp_path / "bad.keras"), load(tmp_path / "good.keras")
    assert [w.tobytes() for w in nameplate.read(old).values()] == [w.tobytes() for w in nameplate.read(new).values()]


def test_fix_writes_the_rename_map_of_what_is_no_keras_file(tmp_path: Path) -> None:
    automatic(tmp_path / "bad.keras")
    load(tmp_path / "bad.keras").save_weights(tmp_path / "bad.weights.h5")
    main([str(tmp_path / "bad.weights.h5"), "--fix", str(tmp_path / "map.json")])

    assert json.loads((tmp_path / "map.json").read_text()) == {"body/dense_8": "body/dense1", "dense_9": "dense1"}


@pytest.mark.parametrize(
    ("source", "out", "words"),
    [
        ("bad.keras", "none/out.json", "none is not a directory; create it first"),
        ("bad.keras", "none/out.keras", "none is not a directory; create it first"),
        ("bad.keras", "", "is a directory; name a file"),
        ("bad.keras", "out.h5", "give --fix out.json"),
        ("bad.weights.h5", "out.keras", "give --fix out.json"),
    ],
)
def test_what_cannot_be_written_is_refused(
    source: str, out: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    automatic(tmp_path / "bad.keras")
    load(tmp_path / "bad.keras").save_weights(tmp_path / "bad.weights.h5")

    assert main([str(tmp_path / source), "--fix", str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"bad.keras", "bad.weights.h5"}


def test_fix_says_what_it_wrote_and_nothing_of_tensorflows(tmp_path: Path) -> None:
    automatic(tmp_path / "bad.keras")
    command = [
        sys.executable,
        "-m",
        "trainer.names",
        str(tmp_path / "bad.keras"),
        "--fix",
        str(tmp_path / "good.keras"),
    ]
    done = subprocess.run(command, capture_output=True, check=False, text=True)

    lines = [line for line in done.stderr.splitlines() if "cuInit" not in line]  # a driver without its GPU
    assert lines == [f"names: wrote {tmp_path / 'good.keras'}: the model with repaired names, uncompiled"]


def test_names_are_read_without_tensorflow(tmp_path: Path) -> None:
    nested().save(tmp_path / "m.keras")
    code = (
        "import sys; from trainer.names import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'keras', 'h5py'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.keras")], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("kind", ["soft", "external", "data", "virtual"])
def test_hdf5_that_reaches_outside_itself_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        if kind == "soft":
            group["0"] = h5py.SoftLink("/elsewhere")
        elif kind == "external":
            group["0"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "data":
            group.create_dataset("0", (4,), "u1", external=[("/etc/passwd", 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
            group.create_virtual_dataset("0", layout)

    assert main([str(path)]) == 2
    assert "refused" in capsys.readouterr().err


def test_a_file_that_would_grow_without_measure_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "[" * 100_000)
    assert main([str(path)]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_names_from_a_file_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a\x1b[2J/kernel": np.zeros(1, "float32")}, tmp_path / "m.safetensors")

    assert main([str(tmp_path / "m.safetensors")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_subclassed_models_file_tells_what_its_groups_tell(tmp_path: Path) -> None:
    subclassed().save(tmp_path / "m.keras")

    assert {"stem", "body/first"} <= {item.name for item in read_table(str(tmp_path / "m.keras")).layers}


@keras.saving.register_keras_serializable("test_names_tool")
class Holding(keras.Model):
    """Layers of Keras that hold others, as attributes and in a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enc = layers.LSTM(3, return_sequences=True, name="enc")
        self.att = layers.MultiHeadAttention(2, 2, dropout=0.1, name="att")
        self.group = layers.GroupQueryAttention(2, 2, 1, name="group")
        self.each = layers.TimeDistributed(layers.Dense(3), name="each")
        self.both = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")
        self.blocks = [layers.Bidirectional(layers.GRU(3), name="b0")]
        self.auto = layers.Dense(2)

    def call(self, x: Any) -> Any:
        x = self.att(self.enc(x), self.enc(x))
        return self.auto(self.blocks[0](self.both(self.each(self.group(x, x)))))


def holding() -> keras.Model:
    model = Holding(name="held")
    model(np.zeros((2, 4, 6), "float32"))
    return model


def stacked_cells() -> keras.Model:
    steps = keras.Input((4, 6), name="steps")
    return keras.Model(steps, layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)], name="cells")(steps), name="m")


def held_in_a_graph() -> keras.Model:
    x = steps = keras.Input((4, 6), name="steps")
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(x)
    x = layers.TimeDistributed(keras.Sequential([layers.Dense(3), layers.Dense(2, name="x")]), name="each")(x)
    return keras.Model(steps, layers.Add()([x + x, keras.ops.relu(x)]), name="m")


HOLDING = [holding, stacked_cells, held_in_a_graph]
ENDINGS = [".keras", "own.keras", ".weights.h5", ".h5"]
FILES = [
    pytest.param(make, ending, marks=[pytest.mark.long] if make not in HOLDING and ending != ".keras" else [])
    for make in (*HOLDING, *BUILT.values())
    for ending in ENDINGS
]


@pytest.mark.parametrize(("make", "ending"), FILES)
def test_a_files_violations_are_its_models(make: Any, ending: str, tmp_path: Path) -> None:
    model = make()
    path = tmp_path / f"m{ending}"
    if isinstance(model, Holding | Net) and ending == ".h5":
        pytest.skip("Keras writes no configuration of it")
    if ending == "own.keras":
        nameplate.save(model, path)
    elif ending == ".weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    table = read_table(str(path))

    wanted = nameplate.check(model)
    if not table.model_class:  # a file of weights does not name its model
        wanted = [each for each in wanted if not each.message.startswith(policies.MODEL_NAME)]
    assert sorted((each.name, each.rule) for each in table.violations(Policy())) == sorted(
        (each.name, each.rule) for each in wanted
    )


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("functional_3", "functional_3: the model's own name: made up by Keras; pass name='model'"),
        ("my model", "my model: the model's own name: has ' '"),
    ],
)
def test_the_models_own_name_is_checked_as_enforce_checks_it(
    name: str, says: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = keras.Input((4,), name="image")
    path = str(tmp_path / f"m{ending}")
    keras.Model(image, keras.layers.Dense(2, name="dense")(image), name=name).save(path)
    assert main([path]) == 1
    assert says in capsys.readouterr().out
    assert main([path, "--json"]) == 1
    assert name in [each["name"] for each in json.loads(capsys.readouterr().out)["violations"]]
    assert main([path, "--policy", "off"]) == 0
