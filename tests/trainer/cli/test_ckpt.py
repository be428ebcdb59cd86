from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import array, same, snapshot
from trainer.cli.ckpt import main

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, of three checkpoints and of one."""
    for name, steps in {"digits": (100, 200, 300), "other": (7,)}.items():
        directory = tmp_path / name / "checkpoints"
        for step in steps:
            path = store.save(directory, snapshot(step))
        store.point(directory, "latest", path)
    store.point(tmp_path / "digits" / "checkpoints", "best", tmp_path / "digits" / "checkpoints" / "step_00000200")
    return tmp_path


@pytest.fixture
def ckpt(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command and return its exit code and all that it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(str(stop.code))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def document(ckpt: Run, *arguments: object) -> Any:
    _, printed = ckpt(*arguments, "--json")
    return json.loads(printed)


def newest(run: Path) -> store.Checkpoint:
    return store.open(store.checkpoints(run / "checkpoints")[-1])


def ruin(path: Path) -> None:
    data = bytearray((path / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "weights.safetensors").write_bytes(data)


def test_ls_lists_by_step_with_metrics_and_pointers(ckpt: Run, runs: Path) -> None:
    code, printed = ckpt("ls", runs / "digits")
    lines = printed.splitlines()
    assert code == 0
    assert lines[0].split() == ["checkpoint", "step", "epoch", "position", "size", "loss", "val/accuracy", "is"]
    assert [line.split()[1] for line in lines[1:]] == ["100", "200", "300"]
    assert lines[2].endswith("best")
    assert lines[3].endswith("latest")


@pytest.mark.parametrize("path", ["digits", "digits/checkpoints", "digits/checkpoints/step_00000100", "digits/best"])
def test_a_run_its_checkpoints_one_of_them_or_a_pointer_is_understood(ckpt: Run, runs: Path, path: str) -> None:
    assert ckpt("ls", runs / path)[0] == 0
    step = {"digits/checkpoints/step_00000100": 100, "digits/best": 200}.get(path, 300)
    assert document(ckpt, "show", runs / path)["step"] == step


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("digit", "There is nothing at {runs}/digit. Did you mean 'digits'? {runs} has digits, empty, other."),
        ("digits/checkpoints/step_00000150", "has step_00000100, step_00000200, step_00000300"),
        ("digits/worst", "There is nothing at"),
        ("nowhere/at/all", "{runs} has digits, empty, other."),
        ("", "It holds the runs digits, other; name one of them."),
        ("digits/checkpoints/latest/x", "There is nothing at"),
        ("file", "{runs}/file is a file; a checkpoint is a directory."),
        ("empty", "There are no checkpoints in {runs}/empty. It is empty."),
    ],
)
def test_an_unknown_path_is_answered_with_what_is_nearby(ckpt: Run, runs: Path, path: str, answer: str) -> None:
    (runs / "file").write_text("")
    (runs / "empty").mkdir()
    for command in ("ls", "show", "verify"):
        code, printed = ckpt(command, runs / path)
        assert code == 2
        assert answer.format(runs=runs) in printed
        assert "Traceback" not in printed


def test_show_prints_every_tensor_with_class_and_role(ckpt: Run, runs: Path) -> None:
    code, printed = ckpt("show", runs / "digits")
    assert code == 0
    assert "step 300, epoch 3, position 640" in printed
    assert "versions: {'nameplate': '0.1.0'}" in printed
    slot = next(line for line in printed.splitlines() if line.startswith("stem_conv/kernel@momentum"))
    assert slot.split() == [
        "stem_conv/kernel@momentum",
        "Conv2D",
        "momentum",
        "float32",
        "3",
        "x",
        "3",
        "x",
        "1",
        "x",
        "8",
        "288",
        "B",
    ]


def test_verify_exits_1_and_names_all_damage(ckpt: Run, runs: Path) -> None:
    assert ckpt("verify", runs / "digits")[0] == 0
    for step in (100, 300):
        ruin(runs / "digits" / "checkpoints" / f"step_00000{step}")
    code, printed = ckpt("verify", runs / "digits", runs / "other")
    assert code == 1
    assert printed.count("DAMAGED") == 2
    assert printed.count("weights.safetensors: tensor head/kernel: does not match its hash") == 2
    verdicts = document(ckpt, "verify", runs / "digits", runs / "other")
    assert [verdict["good"] for verdict in verdicts] == [False, True, False, True]


def test_a_checkpoint_without_a_manifest_is_listed_as_damaged(ckpt: Run, runs: Path) -> None:
    (runs / "digits/checkpoints/step_00000200/manifest.json").unlink()
    _, printed = ckpt("ls", runs / "digits")
    assert printed.splitlines()[2].split() == ["step_00000200", "damaged"]
    code, printed = ckpt("show", runs / "digits/checkpoints/step_00000200")
    assert (code, "manifest.json is missing" in printed) == (1, True)


def test_floats_that_json_has_not_are_strings(ckpt: Run, runs: Path) -> None:
    assert document(ckpt, "show", runs / "digits")["about"]["best"] == "inf"


def test_diff_says_how_far_values_moved(ckpt: Run, runs: Path) -> None:
    a, b = runs / "digits/checkpoints/step_00000100", runs / "digits"
    found = document(ckpt, "diff", a, b)
    assert set(found["weights"]["moved"]) == set(snapshot().weights) - {"head/none"}
    assert found["weights"]["moved"]["head/scale"] == {"largest": 200, "relative": 2}
    assert found["weights"]["same"] == ["head/none"]
    assert set(found) == {"a", "b", "weights", "optimizer", "state"}
    code, printed = ckpt("diff", a, b)
    assert code == 0
    assert "weights: 1 the same, 4 moved" in printed


def test_diff_of_a_part(ckpt: Run, runs: Path) -> None:
    found = document(ckpt, "diff", runs / "digits/best", runs / "digits", "--only", "head/scale")
    assert found["weights"]["moved"] == {"head/scale": {"largest": 100, "relative": 0.5}}
    code, printed = ckpt("diff", runs / "digits/best", runs / "digits", "--only", "had")
    assert (code, "Did you mean 'head'" in printed) == (2, True)


def test_plan_accounts_for_both_sides_and_offers_the_bridge(ckpt: Run, runs: Path) -> None:
    weights = {"stem/kernel": array(3, 3, 1, 8), "stem/bias": array(8), "head/scale": array(2)}
    store.save_tensors(runs / "target.safetensors", weights)
    code, printed = ckpt("plan", runs / "digits", runs / "target.safetensors")
    assert code == 1
    assert "It does not fit: 2 missing, 1 shape, 4 unexpected." in " ".join(printed.split())
    assert "These rules would bridge it: stem_conv=stem" in printed
    rules = ["stem_conv=stem", "head="]
    assert ckpt("plan", runs / "digits", runs / "target.safetensors", *rules)[0] == 1
    (runs / "target.safetensors").unlink()
    del weights["head/scale"]
    store.save_tensors(runs / "target.safetensors", weights)
    assert ckpt("plan", runs / "digits", runs / "target.safetensors", *rules)[0] == 0


def test_a_plan_whose_rules_drop_everything_leaves_nothing_over(ckpt: Run, runs: Path) -> None:
    store.save_tensors(runs / "head.safetensors", {"head/scale": array(2)})
    store.save_tensors(runs / "none.safetensors", {})
    assert ckpt("plan", runs / "head.safetensors", runs / "none.safetensors")[0] == 1
    code, printed = ckpt("plan", runs / "head.safetensors", runs / "none.safetensors", "head=")
    assert code == 0
    assert "It fits" in printed
    code, printed = ckpt("plan", runs / "head.safetensors", runs / "none.safetensors", "head=", "--json")
    assert (code, json.loads(printed)["fits"]) == (0, True)


def test_rename_moves_weights_slots_and_seeds_together(ckpt: Run, runs: Path) -> None:
    state = {"seeds/stem_conv/seed/state": np.array([1, 2], np.uint32), "optimizer/iteration": np.array(5)}
    state |= {"apart/stem_conv/kernel@replica1": np.zeros(2)}
    store.save(runs / "source" / "checkpoints", snapshot(9, state=state))
    code, printed = ckpt("rename", runs / "source", runs / "renamed", "stem_conv=backbone/stem", "head/none=")
    assert code == 0, printed
    with newest(runs / "renamed") as opened:
        assert set(opened.weights) == {"backbone/stem/kernel", "backbone/stem/bias", "head/scale", "head/kernel"}
        assert same(opened.weights["backbone/stem/kernel"], snapshot(9).weights["stem_conv/kernel"])
        assert opened.weights.records["backbone/stem/kernel"].layer_class == "Conv2D"
        assert set(opened.optimizer) == {"backbone/stem/kernel@momentum", "iteration"}
        assert set(opened.state) == {
            "seeds/backbone/stem/seed/state",
            "apart/backbone/stem/kernel@replica1",
            "optimizer/iteration",
        }
        edit = opened.manifest.about["edits"][0]
        assert edit["rules"] == ["stem_conv=backbone/stem", "head/none="]
        assert opened.step == 9
    assert store.resolve(runs / "renamed" / "checkpoints", "latest") is not None


def test_rename_refuses_a_rule_that_does_nothing_and_writes_nothing(ckpt: Run, runs: Path) -> None:
    code, printed = ckpt("rename", runs / "digits", runs / "renamed", "stem=backbone")
    assert (code, "'stem=backbone' matches nothing. Did you mean 'stem_conv'" in printed) == (2, True)
    assert not (runs / "renamed").exists()


def test_extract_takes_a_layer_and_its_slots(ckpt: Run, runs: Path) -> None:
    assert ckpt("extract", runs / "digits", runs / "part", "stem_conv")[0] == 0
    with newest(runs / "part") as opened:
        assert set(opened.weights) == {"stem_conv/kernel", "stem_conv/bias"}
        assert set(opened.optimizer) == {"stem_conv/kernel@momentum"}
        assert len(opened.state) == 0
    assert ckpt("extract", runs / "digits", runs / "part.safetensors", "*/bias")[0] == 0
    assert list(load_file(runs / "part.safetensors")) == ["stem_conv/bias"]


def test_extract_reads_only_what_it_takes(ckpt: Run, runs: Path) -> None:
    ruin(runs / "digits/checkpoints/step_00000300")  # in head/kernel
    assert ckpt("extract", runs / "digits", runs / "part.safetensors", "stem_conv")[0] == 0
    code, printed = ckpt("extract", runs / "digits", runs / "more.safetensors", "head")
    assert (code, "tensor 'head/kernel'" in printed) == (1, True)
    assert not (runs / "more.safetensors").exists()


def test_convert_goes_to_a_plain_file_and_back(ckpt: Run, runs: Path) -> None:
    assert ckpt("convert", runs / "digits", runs / "plain.safetensors")[0] == 0
    assert ckpt("convert", runs / "plain.safetensors", runs / "back")[0] == 0
    with newest(runs / "back") as opened:
        assert opened.step == 300
        assert all(same(opened.weights[name], value) for name, value in snapshot(300).weights.items())
        assert len(opened.optimizer) == 0


def test_merge_averages_interpolates_and_adds(ckpt: Run, runs: Path) -> None:
    one, two, three = (runs / f"digits/checkpoints/step_00000{step}" for step in (100, 200, 300))
    cases: list[tuple[str, int, list[object]]] = [
        ("mean", 200, [one, two, three]),
        ("shares", 175, [one, two, "--scales", 1, 3]),
        ("between", 150, [one, two, "--position", 0.5]),
        ("task", 350, [two, three, "--base", one, "--scales", 0.5, 1]),
        ("forget", 0, [two, "--base", one, "--scales", -1]),
    ]
    for target, value, arguments in cases:
        code, printed = ckpt("merge", *arguments, "--to", runs / target)
        assert code == 0, printed
        with newest(runs / target) as opened:
            assert opened.weights["head/scale"] == value, target
            assert opened.manifest.about["edits"][0]["command"] == "merge"


def test_nothing_is_written_over(ckpt: Run, runs: Path) -> None:
    (runs / "there.safetensors").write_text("mine")
    for target in ("there.safetensors", "digits"):
        for command, more in {"convert": [], "extract": ["head"], "rename": ["head=tail"]}.items():
            code, printed = ckpt(command, runs / "digits", runs / target, *more)
            assert (code, "nothing is overwritten" in printed) == (2, True)
    assert (runs / "there.safetensors").read_text() == "mine"


def test_prune_keeps_what_it_is_told_and_can_only_say_so(ckpt: Run, runs: Path) -> None:
    for step in (400, 500):
        store.save(runs / "digits/checkpoints", snapshot(step))
    rule = ["--last", 1, "--best", 1, "--metric", "loss", "--mode", "max"]
    said = document(ckpt, "prune", runs / "digits", *rule, "--dry-run")
    assert len(store.checkpoints(runs / "digits/checkpoints")) == 5
    done = document(ckpt, "prune", runs / "digits", *rule)
    assert said["deleted"] == done["deleted"]
    left = [path.name for path in store.checkpoints(runs / "digits/checkpoints")]
    assert left == ["step_00000100", "step_00000200", "step_00000300", "step_00000500"]


def test_prune_refuses_a_run_that_is_being_trained(ckpt: Run, runs: Path) -> None:
    with store.RunLock(runs / "digits"):
        code, printed = ckpt("prune", runs / "digits", "--last", 1)
    assert (code, f"in use by process {os.getpid()}" in printed) == (2, True)
    assert len(store.checkpoints(runs / "digits/checkpoints")) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ls"],
        ["list", "x"],
        ["prune", "x"],
        ["merge", "a"],
        ["ls", "x", "--yaml"],
        ["prune", "x", "--last", "many"],
    ],
)
def test_a_wrong_command_line_exits_2_with_the_usage(ckpt: Run, arguments: list[str]) -> None:
    code, printed = ckpt(*arguments)
    assert (code, printed.startswith("usage: ckpt")) == (2, True)


@pytest.mark.parametrize(
    "command", ["ls", "show", "verify", "diff", "plan", "rename", "extract", "merge", "convert", "prune"]
)
def test_every_command_explains_itself(ckpt: Run, command: str) -> None:
    code, printed = ckpt(command, "--help")
    assert (code, "--json" in printed) == (0, True)


def test_it_starts_without_tensorflow_keras_and_hydra(runs: Path) -> None:
    script = (
        "import sys; from trainer.ckpt import main; main(['ls', sys.argv[1]]);"
        "print(sorted(m for m in ('tensorflow', 'keras', 'hydra', 'omegaconf', 'h5py') if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(runs / "digits")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_is_no_error(runs: Path) -> None:
    with subprocess.Popen(
        f"{sys.executable} -m trainer.ckpt show {runs}/digits --json | head -1", shell=True, stderr=subprocess.PIPE
    ) as process:
        assert process.communicate()[1] == b""


def test_a_terminal_gets_a_drawn_table(runs: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "trainer.ckpt", "ls", str(runs / "digits")]
    with subprocess.Popen(command, stdout=follower, env=os.environ | {"TERM": "xterm", "COLUMNS": "200"}) as process:
        os.close(follower)
        drawn = b""
        try:
            while part := os.read(leader, 65536):
                drawn += part
        except OSError:  # how a pseudo-terminal says that it ended
            pass
        assert process.wait() == 0
    os.close(leader)
    assert "┃".encode() in drawn
    assert b"step_00000300" in drawn


def test_names_in_a_file_cannot_move_the_cursor(ckpt: Run, runs: Path) -> None:
    store.save(runs / "odd" / "checkpoints", snapshot(1, metrics={"\x1b[2Jloss": 1.0}, about={"note": "\x1b]0;x\x07"}))
    for command in ("ls", "show"):
        _, printed = ckpt(command, runs / "odd")
        assert "\x1b" not in printed
        assert "\\x1b[2Jloss" in printed
