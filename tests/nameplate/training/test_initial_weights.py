"""First weights by name from somewhere else: in whole, in part, renamed; what is left over is refused."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate import checkpoint as store
from nameplate.errors import NameplateError
from nameplate.naming.rules import apply_rules, parse_rules
from nameplate.training.config import CheckpointInitConfig
from nameplate.training.initial_weights import InitialWeightsError, planned
from nameplate.weights.plan import Form
from tests.nets import CUSTOM, write_nets
from tests.trainer.running import about, content, train

pytestmark = pytest.mark.usefixtures("strategy")

STILL = ["fit.steps=1", "optimizer=sgd", "optimizer.learning_rate=1e-30"]  # so that the weights stay as they came
MODEL = ["fit.steps=2", "data.limit=16", "strategy=single"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of layers `body` and `label`."""
    place = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_nets(place, monkeypatch)
        train(place, *CUSTOM, *MODEL, "run=a", "optimizer=adam")
    return place / "a"


@pytest.fixture
def runs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a test's own, with `a` to take from."""
    write_nets(tmp_path, monkeypatch)
    shutil.copytree(source, tmp_path / "a", symlinks=True)
    return tmp_path


def take(runs: Path, *overrides: str, run: str = "b") -> dict[str, np.ndarray]:
    train(runs, *CUSTOM, *MODEL, "init=checkpoint", f"init.path={runs / 'a'}", f"run={run}", "seed=5", *overrides)
    return content(runs / run)


def weights(tensors: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in tensors.items() if name.startswith("weights:")}


def test_all_weights_come_and_the_plan_is_shown_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    taken = take(runs, *STILL)
    assert weights(taken) == weights(content(runs / "a"))
    shown = capsys.readouterr().out
    assert shown.index("initial weights from") < shown.index("epoch 1")
    assert "step_00000002: 4 taken\n" in shown
    take(runs, *STILL, "log.weight_table=true", run="c")
    rows = capsys.readouterr().out
    for name in ("body/kernel", "body/bias", "label/kernel", "label/bias"):
        assert f"{name}  " not in shown
        assert f"{name}  " in rows


def test_each_weight_tells_where_it_came_from_after_resumes_too(runs: Path) -> None:
    renamed = ["model.arguments.names=[trunk,label]", "init.rename=['body=trunk']"]
    take(runs, *STILL, *renamed)
    origins = about(runs / "b")["origins"]
    assert origins["trunk/kernel"]["name"] == "body/kernel"
    assert origins["trunk/kernel"]["rule"] == "body=trunk"
    assert origins["trunk/kernel"]["file"].endswith("step_00000002")
    assert origins["trunk/kernel"]["step"] == 2
    assert "rule" not in origins["label/kernel"]
    take(runs, *STILL, *renamed, "fit.steps=2")
    assert about(runs / "b")["origins"] == origins


def test_first_weights_are_taken_once_and_the_source_may_be_gone_at_a_resume(runs: Path) -> None:
    trained = take(runs, "fit.steps=2", "optimizer.learning_rate=0.1")
    (runs / "a").rename(runs / "gone")
    resumed = take(runs, "fit.steps=2", "optimizer.learning_rate=0.1")
    assert weights(resumed) == weights(trained)
    assert weights(resumed) != weights(content(runs / "gone"))


def test_swapped_layers_of_one_shape_follow_their_names(runs: Path) -> None:
    """Rotation-safe: two names change places in one go."""
    train(runs, "model=mlp", "model.hidden=[64,64,64]", "run=deep", *MODEL)
    swapped = ["init.rename=['hidden2=hidden3','hidden3=hidden2']", f"init.path={runs / 'deep'}", "model=mlp"]
    own = ["model=mlp", "model.hidden=[64,64,64]", *MODEL, "init=checkpoint", *swapped, "run=b"]
    train(runs, *own, *STILL)
    given, taken = content(runs / "deep"), content(runs / "b")
    np.testing.assert_array_equal(given["weights:hidden2/kernel"], taken["weights:hidden3/kernel"])
    np.testing.assert_array_equal(given["weights:hidden3/kernel"], taken["weights:hidden2/kernel"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.arguments.names=[trunk,label]"], "init.rename=['body=trunk']"),
        (["model.arguments.names=[trunk,label]"], "2 of 4 would be taken, and 4 names are left over"),
        (["model.arguments.names=[trunk,label]"], "init.allow_missing=[trunk] init.allow_unexpected=[body]"),
        (["model.arguments.names=[a,b]"], "0 of 4 would be taken"),
        (["model.arguments.names=[bodi,label]"], "Did you mean 'body/kernel'"),
        (["model.arguments.width=9"], "shape       body/kernel"),
        (["init.rename=['bdy=trunk']"], "'bdy=trunk' matches nothing. Did you mean 'body"),
        (["init.only=[bodi]"], "'bodi' Did you mean 'body'"),
        (["init.allow_missing=[body]"], "init.allow_missing: 'body' allows nothing, there is no such difference"),
        (["init.path=/nowhere/at/all"], "There is nothing at /nowhere/at/all"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides_and_leaves_nothing(
    runs: Path, overrides: list[str], says: str
) -> None:
    with pytest.raises(NameplateError) as error:
        take(runs, *overrides)
    assert says in str(error.value)
    assert not (runs / "b").exists()


def test_each_leniency_allows_what_it_names_and_no_more(runs: Path) -> None:
    """keras#11867: which layers were loaded, and which were not, is told for each."""
    head = ["model.arguments.names=[body,head]", "init.allow_missing=[head]"]
    with pytest.raises(InitialWeightsError, match="label/kernel"):
        take(runs, *STILL, *head)
    taken = take(runs, *STILL, *head, "init.allow_unexpected=[label]")
    given = content(runs / "a")
    np.testing.assert_array_equal(given["weights:body/kernel"], taken["weights:body/kernel"])
    assert about(runs / "b")["origins"].keys() == {"body/kernel", "body/bias"}
    wide = take(runs, *STILL, "model.arguments.width=9", "init.allow_shape=[body,label/kernel]", run="c")
    np.testing.assert_array_equal(given["weights:label/bias"], wide["weights:label/bias"])
    assert about(runs / "c")["origins"].keys() == {"label/bias"}


def test_the_optimizers_slots_come_along_where_they_are_asked_for(runs: Path) -> None:
    taken = take(runs, "fit.steps=3", "init.optimizer=true", "optimizer.learning_rate=1e-30", run="slots")
    given = content(runs / "a")
    assert taken["state:optimizer/iteration"] == given["state:optimizer/iteration"] + 3
    fresh = take(runs, "fit.steps=3", "optimizer.learning_rate=1e-30", run="fresh")
    name = "optimizer:body/kernel@velocity"
    # Three steps on the same data differ by what the slots began with, times beta_2 to the third.
    apart = taken[name] - fresh[name]
    np.testing.assert_allclose(apart, given[name] * 0.999**3, rtol=1e-3, atol=1e-9)


def test_slots_of_another_optimizer_are_refused_by_name(runs: Path) -> None:
    """keras#20128, keras#16983: slots are never dropped in silence."""
    with pytest.raises(InitialWeightsError) as error:
        take(runs, "init.optimizer=true", "optimizer=rmsprop")
    assert "unexpected  body/kernel@momentum" in str(error.value)
    assert "Choose the optimizer that it was trained with" in str(error.value)


def test_a_plain_file_of_tensors_is_a_source_too(runs: Path) -> None:
    given = {name.removeprefix("weights:"): value for name, value in content(runs / "a").items() if "weights:" in name}
    store.save_tensors(runs / "theirs.safetensors", {f"net/{name}": value for name, value in given.items()})
    taken = take(runs, *STILL, f"init.path={runs / 'theirs.safetensors'}", "init.rename=['re:net/(.*)=\\1']")
    assert weights(taken) == weights(content(runs / "a"))


@pytest.mark.parametrize("name", ["theirs.keras", "theirs.weights.h5"])
def test_files_of_plain_keras_are_sources_by_name(runs: Path, name: str) -> None:
    """keras#3488, tensorflow#38251: by name is not for one old format only."""
    nets: Any = importlib.import_module("my_nets")
    model = nets.build((8, 8, 1), 10)
    (model.save if name.endswith(".keras") else model.save_weights)(runs / name)
    taken = take(runs, *STILL, f"init.path={runs / name}")
    for layer in ("body", "label"):
        np.testing.assert_array_equal(taken[f"weights:{layer}/kernel"], model.get_layer(layer).kernel.numpy())


FORMS = {"a/kernel": Form((2, 3), "float32"), "a/bias": Form((3,), "float32"), "b/kernel": Form((3, 4), "float32")}


def verdicts_of(source: dict[str, Form], target: dict[str, Form], **options: Any) -> dict[str, str]:
    plan = planned(source, target, CheckpointInitConfig(path="", **options))
    return {line.target or f"-{line.source}": line.verdict for line in plan.lines}


@pytest.mark.parametrize(
    ("options", "verdicts"),
    [
        ({}, {"a/kernel": "taken", "a/bias": "taken", "b/kernel": "taken"}),
        ({"only": ["a"]}, {"a/kernel": "taken", "a/bias": "taken", "b/kernel": "left"}),
        ({"only": ["*/kernel"]}, {"a/kernel": "taken", "a/bias": "left", "b/kernel": "taken"}),
        (
            {"rename": ["b="], "allow_missing": ["b"]},
            {"a/kernel": "taken", "a/bias": "taken", "b/kernel": "kept", "-b/kernel": "dropped"},
        ),
    ],
)
def test_the_plan_is_data(options: dict[str, Any], verdicts: dict[str, str]) -> None:
    assert verdicts_of(FORMS, FORMS, **options) == verdicts


def test_another_dtype_is_cast_only_where_it_is_allowed() -> None:
    half = {name: Form(form.shape, "float16") for name, form in FORMS.items()}
    assert set(verdicts_of(half, FORMS).values()) == {"dtype"}
    assert verdicts_of(half, FORMS, allow_dtype=["a"]) == {"a/kernel": "taken", "a/bias": "taken", "b/kernel": "dtype"}
    lines = planned(half, FORMS, CheckpointInitConfig(path="", allow_dtype=["a"])).lines
    assert [line.conversion for line in lines] == ["float16 to float32", "float16 to float32", ""]


def test_rules_match_whole_components_unless_they_say_otherwise() -> None:
    """transformers#29554: a user's own `gamma_net/kernel` is not rewritten by a rule for `gamma`."""
    names = ["norm/gamma", "gamma_net/kernel", "gamma/kernel"]
    mapped = apply_rules(names, parse_rules(["gamma=scale"])).names
    assert mapped == {
        "norm/gamma": "norm/gamma",
        "gamma_net/kernel": "gamma_net/kernel",
        "gamma/kernel": "scale/kernel",
    }


def test_a_rule_set_that_misses_a_subtree_is_accounted_for_on_both_sides() -> None:
    """transformers#46129: what the rules do not cover is never left at random."""
    theirs = {f"old/{name}": form for name, form in FORMS.items()}
    plan = planned(theirs, FORMS, CheckpointInitConfig(path="", rename=["old/a=a"]))
    assert {(line.target, line.source) for line in plan.problems} == {("b/kernel", None), (None, "old/b/kernel")}


# ---- init=custom: a function of the user's ----------------------------------------------------------------------

MY_WEIGHTS = """
import keras

def arrays(model, seed, value=0.5, names=("body", "label")):
    own = {variable.path: variable for variable in model.variables}
    weights = {path: keras.ops.full(own[path].shape, value) for path in own if path.split("/")[0] in names}
    return weights | {f"{names[-1]}/bias": own[f"{names[-1]}/bias"] + seed}

def whole(model):
    twin = keras.models.clone_model(model)
    twin.set_weights([weight * 0 + 2 for weight in model.get_weights()])
    return twin

def nothing():
    return [1, 2]

def texts(model):
    return {variable.path: "text" for variable in model.variables}

def fails(model):
    raise RuntimeError("no such table")
"""


@pytest.fixture
def custom(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (runs / "my_weights.py").write_text(MY_WEIGHTS)
    monkeypatch.delitem(sys.modules, "my_weights", raising=False)
    importlib.invalidate_caches()

    def begun(function: str, *overrides: str, run: str = "b", trust: str = "my_nets,my_weights") -> Any:
        chosen = ["init=custom", f"init._target_=my_weights.{function}", f"trust=[{trust}]", "seed=5", *overrides]
        train(runs, *CUSTOM[:2], *MODEL, *STILL, *chosen, f"run={run}")
        return content(runs / run)

    return begun


def test_the_arrays_of_a_function_come_by_name_and_resume_without_it(custom: Any, runs: Path) -> None:
    taken = custom("arrays", "init.arguments={value: 0.25}")
    np.testing.assert_array_equal(taken["weights:body/kernel"], np.full((64, 8), 0.25, np.float32))
    np.testing.assert_array_equal(taken["weights:label/bias"], np.full(10, 5.0, np.float32))
    assert about(runs / "b")["origins"]["body/kernel"] == {"file": "my_weights.arrays", "name": "body/kernel"}
    (runs / "my_weights.py").unlink()
    custom("arrays", "init.arguments={value: 0.25}", "fit.steps=2", trust="my_nets")


def test_a_function_may_return_a_model_whose_weights_are_taken(custom: Any) -> None:
    np.testing.assert_array_equal(custom("whole")["weights:body/kernel"], np.full((64, 8), 2.0, np.float32))


@pytest.mark.parametrize(
    ("function", "overrides", "says"),
    [
        ("arrays", ["init.arguments={names: [label]}"], r"missing +body/kernel(?s:.*)init.allow_missing=\[body\]"),
        (
            "arrays",
            ["init.arguments={valu: 1}"],
            r"init: my_weights.arrays(?s:.*)it takes no 'valu'. Did you mean 'value'",
        ),
        ("nothing", [], r"init: my_weights.nothing returned list; it must return {variable name: array}"),
        ("texts", [], r"returned no array of numbers for body/kernel, body/bias"),
        ("fails", [], r"init: my_weights.fails raised RuntimeError: no such table"),
        ("array", [], r"init._target_: my_weights has no 'array', .*Did you mean 'arrays'"),
    ],
)
def test_what_a_function_cannot_give_is_refused(
    custom: Any, runs: Path, function: str, overrides: list[str], says: str
) -> None:
    with pytest.raises(NameplateError, match=says):
        custom(function, *overrides)
    assert not (runs / "b").exists()


def test_a_function_that_is_not_trusted_is_not_imported(custom: Any) -> None:
    with pytest.raises(
        NameplateError, match=r"init._target_: 'my_weights.arrays' is not among (?s:.*)trust=\[my_weights"
    ):
        custom("arrays", trust="my_nets")
    assert "my_weights" not in sys.modules
