"""Runs that someone else prepared: at no door does anything in them run, or open a file.

Every attack goes through every door that takes a run or a checkpoint; canaries show what ran or was opened.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

import nameplate
from nameplate.data.targets import TargetError, resolver
from nameplate.errors import NameplateError
from nameplate.formats import open_weights
from tests import foreign
from tests.trainer.running import train
from trainer.cli import ckpt, dream, evaluate, export, names, predict
from trainer.job.model import Rebuilt, rebuild

SMALL = ["model=mlp", "model.hidden=[4]", "data.limit=16", "fit.steps=1"]


class Canary:
    """A program and a file: what runs the first or opens the second leaves a trace."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "program"
        self._ran = folder / "ran"
        self.secret = folder / "secret.txt"
        self.secret.write_text("one\ntwo\n")
        os.utime(self.secret, (1, 1))  # a first read shows even under `relatime`
        _save_program(self.program, self._ran)
        self._ran.unlink(missing_ok=True)

    def sings(self) -> bool:
        """Tell whether the program ran or the file was opened."""
        return self._ran.exists() or self.secret.stat().st_atime != 1


def _save_program(path: Path, ran: Path) -> None:
    """Write a SavedModel that writes the file `ran` when it is loaded."""
    import tensorflow as tf

    class Table(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        def _initialize(self) -> None:
            tf.io.write_file(str(ran), "x")

    module = tf.Module()
    module.table = Table()
    module.serve = tf.function(lambda x: x * 1.0, input_signature=[tf.TensorSpec((None, 2))])
    tf.saved_model.save(module, str(path), signatures=module.serve)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, strategy: object) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    train(runs, "run=mine", *SMALL)
    return runs / "mine"


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    (tmp_path / "outside").mkdir()
    return Canary(tmp_path / "outside")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_f1_the_canary_sings_where_a_program_runs_or_a_file_is_opened(canary: Canary) -> None:
    assert not canary.sings()
    keras.layers.TFSMLayer(str(canary.program), call_endpoint="serving_default")
    assert canary.sings()
    other = Canary(_made(canary.secret.parent / "other"))
    keras.layers.StringLookup(vocabulary=str(other.secret))
    assert other.sings()


def _made(path: Path) -> Path:
    path.mkdir()
    return path


# ---- doors: what takes a run or a checkpoint --------------------------------------------------------------------

Door = Callable[[Path], object]
READING: dict[str, Door] = {
    "dream": lambda run: dream.main([str(run), "label", "--steps", "1"]),
    "dream of a checkpoint": lambda run: dream.main([str(foreign.newest(run)), "--layers", "*", "--steps", "1"]),
    "dream of an example": lambda run: dream.main([str(run), "label", "--steps", "1", "--image", "example:0"]),
    "evaluate": lambda run: evaluate.main([str(run), "--json", "numbers.json"]),
    "evaluate on other data": lambda run: evaluate.main([str(run), "data.validation=0.2"]),
    "predict": lambda run: _predicted(run),
    "export": lambda run: export.main([str(run), "--to", "exported.keras"]),
    "rebuild": lambda run: rebuild(str(run)),
    "data": lambda run: _data(rebuild(str(run))),
    "names": lambda run: names.main([str(run)]),
    "names --fix": lambda run: names.main([str(run), "--fix", "map.json"]),
    "ckpt ls": lambda run: ckpt.main(["ls", str(run)]),
    "ckpt show": lambda run: ckpt.main(["show", str(run)]),
    "ckpt verify": lambda run: ckpt.main(["verify", str(run)]),
    "ckpt diff": lambda run: ckpt.main(["diff", str(run), str(run)]),
    "ckpt plan": lambda run: ckpt.main(["plan", str(run), str(run)]),
    "ckpt convert": lambda run: ckpt.main(["convert", str(run), "converted.keras"]),
    "ckpt convert to PyTorch": lambda run: ckpt.main(["convert", str(run), "converted.pt"]),
    "ckpt extract": lambda run: ckpt.main(["extract", str(run), "extracted", "*"]),
    "ckpt rename": lambda run: ckpt.main(["rename", str(run), "renamed", "label=head"]),
    "load": lambda run: nameplate.load(foreign.newest(run)),
    "load only": lambda run: nameplate.load(foreign.newest(run), only=["*"]),
    "load_weights": lambda run: nameplate.load_weights(_net(), foreign.newest(run)),
    "load_beside": lambda run: nameplate.load_beside(foreign.newest(run), {"net": _net()}, prefix="their_"),
    "open_weights": lambda run: open_weights(foreign.newest(run)),
}
TRAINING: dict[str, Door] = {
    "first weights": lambda run: train(run.parent, *SMALL, "run=next", "init=checkpoint", f"init.path={run}"),
    "transfer": lambda run: train(run.parent, *SMALL, "run=part", "init=transfer", f"init.path={run}"),
    "resume": lambda run: train(run.parent, *SMALL, "fit.steps=2", f"run={run.name}"),
}


def _predicted(run: Path) -> object:
    np.save(run.parent / "images.npy", np.zeros((2, 8, 8, 1), np.float32))
    return predict.main([str(run), str(run.parent / "images.npy"), "--to", str(run.parent / "predictions.csv")])


def _data(rebuilt: Rebuilt) -> object:
    assert rebuilt.data is not None
    return rebuilt.data()


def _net() -> keras.Model:
    x = keras.Input((64,), name="pixels")
    return keras.Model(x, keras.layers.Dense(10, name="label")(x), name="net")


def walked_through(run: Path, doors: Mapping[str, Door] = READING) -> dict[str, str]:
    """Go through every door with a copy of the run, and return what each raised."""
    raised: dict[str, str] = {}
    for door, enter in doors.items():
        own = foreign.copied(run, run.parent / f"{len(raised)}_{run.name}")
        try:
            enter(own)
            raised[door] = ""
        except NameplateError as error:
            raised[door] = str(error)
        finally:
            shutil.rmtree(own)
    return raised


# ---- attacks ----------------------------------------------------------------------------------------------------


def custom(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_option_": "custom", "_target_": target, "arguments": arguments}


def in_layers(**layer: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1] |= layer

    return change


CONFIGS: dict[str, Callable[[Canary], dict[str, Any]]] = {
    "a program as the model": lambda canary: {
        "model": custom("keras.layers.TFSMLayer", filepath=str(canary.program), call_endpoint="serving_default")
    },
    "a program as the data": lambda canary: {
        "data": custom("keras.layers.TFSMLayer", filepath=str(canary.program), call_endpoint="serving_default")
    },
    "a file as the model": lambda canary: {"model": custom("keras.layers.StringLookup", vocabulary=str(canary.secret))},
    "a file as the data": lambda canary: {"data": custom("keras.layers.StringLookup", vocabulary=str(canary.secret))},
    "weights of an application": lambda canary: {
        "model": custom("keras.applications.MobileNetV2", weights=str(canary.secret))
    },
    "a command": lambda canary: {"model": custom("os.system", command=f"cat {canary.secret}")},
    "a loader": lambda canary: {
        "model": custom("keras.saving.load_model", filepath=str(canary.program), safe_mode=False)
    },
    "a target of an architecture": lambda canary: {
        "model": {"_option_": "mlp", "_target_": "keras.layers.TFSMLayer", "hidden": [4]}
    },
    "trust of its own": lambda canary: {
        "model": custom("keras.layers.StringLookup", vocabulary=str(canary.secret)),
        "trust": ["keras", "os"],
    },
}
MODELS: dict[str, Callable[[Canary], Callable[[dict[str, Any]], None]]] = {
    "a program as a layer": lambda canary: in_layers(
        module="keras.layers",
        class_name="TFSMLayer",
        config={"name": "label", "filepath": str(canary.program), "call_endpoint": "serving_default"},
    ),
    "a file as a layer": lambda canary: in_layers(
        module="keras.layers",
        class_name="StringLookup",
        config={"name": "label", "vocabulary": str(canary.secret)},
    ),
}


THROUGH_ALL = ("a program as the model", "a file as the data")  # the others through the doors that read it
_ALIKE = ("ckpt", "names --", "dream of a c", "load_")  # they read what the others read
BUILDING = {door: enter for door, enter in READING.items() if not door.startswith(_ALIKE) and door != "load"}


@pytest.mark.parametrize("attack", CONFIGS)
def test_f1_a_stored_configuration_runs_and_opens_nothing_at_any_door(
    attack: str, honest: Path, canary: Canary, tmp_path: Path
) -> None:
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, **CONFIGS[attack](canary))

    raised = walked_through(run, READING if attack in THROUGH_ALL else BUILDING)
    assert not canary.sings()
    assert "by a stored configuration, and only the project's own architectures" in raised["data"]
    assert "--trust" in raised["data"]
    assert raised["rebuild"] == ("" if "data" in attack else raised["data"])
    assert raised["open_weights"] == raised["load only"] == raised["names"] == ""


def test_f1_a_run_that_begins_with_it_or_goes_on_from_it_runs_and_opens_nothing(
    honest: Path, canary: Canary, tmp_path: Path
) -> None:
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, **CONFIGS["a program as the model"](canary), trust=["keras"])
    foreign.with_model(run, MODELS["a program as a layer"](canary))

    raised = walked_through(run, TRAINING)
    assert not canary.sings()
    assert raised["first weights"] == raised["transfer"] == ""
    assert "model" in raised["resume"]


@pytest.mark.parametrize("attack", MODELS)
def test_f1_a_stored_model_runs_and_opens_nothing_at_any_door(
    attack: str, honest: Path, canary: Canary, tmp_path: Path
) -> None:
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_model(run, MODELS[attack](canary))

    raised = walked_through(run)
    assert not canary.sings()
    assert "could run code or open files" in raised["load"]
    assert raised["load only"] == raised["open_weights"] == ""


OBJECTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "a loss": lambda evil: {"objective": {"loss": evil}},
    "a file as the model": lambda evil: {"model": {"_option_": "file", "path": evil["filepath"]}},
    "a callback": lambda evil: {"callbacks": {"own": evil}},
    "a metric": lambda evil: {"objective": {"metrics": [evil]}},
    "an optimizer": lambda evil: {"optimizer": {"_option_": "custom", "_target_": evil["_target_"], "arguments": evil}},
    "a schedule": lambda evil: {"schedule": {"decay": "custom", "_target_": evil["_target_"], "arguments": evil}},
}


@pytest.mark.parametrize("what", OBJECTS)
def test_f1_objects_that_a_stored_configuration_names_are_made_at_no_door(
    what: str, honest: Path, canary: Canary, tmp_path: Path
) -> None:
    evil = {"_target_": "keras.layers.TFSMLayer", "filepath": str(canary.program), "call_endpoint": "serving_default"}
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, **OBJECTS[what](evil), trust=["keras"])

    raised = walked_through(run, BUILDING | TRAINING)
    assert not canary.sings()
    assert raised["rebuild"] == raised["names"] == raised["load only"] == raised["first weights"] == ""
    assert "not what" in raised["resume"]


EDITS: dict[str, Callable[[Canary], dict[str, Any]]] = {
    "a program": lambda canary: {"_target_": "TFSMLayer", "filepath": str(canary.program)},
    "a file": lambda canary: {"_target_": "keras.layers.StringLookup", "vocabulary": str(canary.secret)},
    "a file inside": lambda canary: {
        "_target_": "TimeDistributed",
        "layer": {"_target_": "StringLookup", "vocabulary": str(canary.secret)},
    },
    "a command": lambda canary: {"_target_": "os.system", "command": f"cat {canary.secret}"},
    "a size out of proportion": lambda canary: {"_target_": "Dense", "units": 4_000_000_000, "name": "large"},
}


@pytest.mark.parametrize("attack", EDITS)
def test_f1_edits_in_a_stored_configuration_run_and_open_nothing(
    attack: str, honest: Path, canary: Canary, tmp_path: Path
) -> None:
    edits = [{"insert": {"after": "label", "layer": EDITS[attack](canary)}}]
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, model={"_option_": "mlp", "hidden": [4], "edits": edits}, trust=["keras", "os"])

    raised = walked_through(run, BUILDING | TRAINING)
    assert not canary.sings()
    assert "model.edits" in raised["rebuild"] or "would grow to" in raised["rebuild"]
    assert "not what" in raised["resume"]


def test_f1_what_the_command_line_trusts_is_built(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_nets.py").write_text(
        "import keras\n"
        "def build(input_shape, classes):\n"
        "    x = keras.Input(input_shape, name='pixels')\n"
        "    flat = keras.layers.Flatten(name='flat')(x)\n"
        "    hidden = keras.layers.Dense(4, name='hidden1')(flat)\n"
        "    return keras.Model(x, keras.layers.Dense(classes, name='label')(hidden), name='theirs')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    runs = tmp_path / "runs"
    train(runs, "run=a", "data.limit=16", "fit.steps=1", "model=custom", "model._target_=their_nets.build",
          "trust=[their_nets]")  # fmt: skip
    with pytest.raises(TargetError, match="--trust their_nets"):
        rebuild(str(runs / "a"))
    assert rebuild(str(runs / "a"), trust=["their_nets"]).model.name == "theirs"


@pytest.mark.parametrize(
    "path",
    [
        "keras.layers.TFSMLayer",
        "keras.layers.StringLookup",
        "keras.layers.Lambda",
        "keras.layers.Hashing",
        "keras.layers.Dense",
        "keras.metrics.Mean",
        "trainer.models.checks.rates",
        "trainer.models.applications.names",
        "keras.applications.resnet.preprocess_input",
    ],
)
def test_f1_the_command_line_has_a_list_of_names_and_no_prefix(path: str) -> None:
    for stored, says in ((False, "not among what may be run"), (True, "only the project's own architectures")):
        with pytest.raises(TargetError, match=says):
            resolver([], stored=stored)(path)


def test_f1_an_application_opens_no_weights_without_trust(canary: Canary) -> None:
    build = resolver([])("keras.applications.MobileNetV2")
    for given in ({}, {"weights": "imagenet"}, {"weights": str(canary.secret)}):
        with pytest.raises(TargetError, match="is a file to open or download"):
            build(**given)
    with pytest.raises(TargetError, match="would become an object"):
        build(weights=None, classifier_activation={"class_name": "x", "config": {}})
    with pytest.raises(TargetError, match="named by a stored configuration"):
        resolver([], stored=True)("keras.applications.MobileNetV2")
    assert not canary.sings()


def test_f1_the_list_has_every_application_that_keras_has() -> None:
    from nameplate.data.targets import KERAS
    from trainer.models.applications import names as known

    assert {f"keras.applications.{name}" for name in known()} == KERAS


def test_f3_an_architecture_out_of_proportion_to_its_checkpoint_is_not_made(honest: Path, tmp_path: Path) -> None:
    run = foreign.copied(honest, tmp_path / "theirs")
    foreign.with_config(run, model={"_option_": "mlp", "hidden": [4_000_000_000]})
    with pytest.raises(NameplateError, match=r"the model of .* would grow to"):
        rebuild(str(run))


def test_a_run_whose_architecture_has_its_former_name_resumes_and_is_rebuilt(honest: Path, tmp_path: Path) -> None:
    run = foreign.copied(honest, tmp_path / "mine")
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    former = model["_target_"].replace("trainer.models.", "models.zoo.")
    assert former != model["_target_"]
    foreign.with_config(run, model=model | {"_target_": former})
    assert rebuild(str(run)).step == 1
    steps = [each for each in SMALL if not each.startswith("fit.steps=")]
    assert train(tmp_path, "run=mine", *steps, "fit.steps=2").steps == 2


def test_a_former_name_is_the_users_own_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "zoo").mkdir(parents=True)
    for package in ("models", "models/zoo"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "models" / "zoo" / "mlp.py").write_text("def build(): return 'theirs'\n")
    for name in [each for each in sys.modules if each.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolver(["models"])("models.zoo.mlp.build")() == "theirs"
    assert resolver([])("models.zoo.mlp.build") is resolver([], stored=True)("trainer.models.mlp.build")
    for name in [each for each in sys.modules if each.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
