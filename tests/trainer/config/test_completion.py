"""Completion in a real bash: the console script tells how words go on, without TensorFlow and without schemas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.running import command
from trainer.config.composing import completions

BIN = Path(sys.executable).parent
ASK = """
eval "$(nameplate -sc install=bash)"
complete -p nameplate
while IFS= read -r line; do
  COMP_LINE="$line" COMP_POINT=${#line} COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  hydra_bash_completion
  echo "${COMPREPLY[*]}"
done
"""
LINES = {
    "nameplate model=re": ["model=resnet"],
    "nameplate optimizer=adamw optimizer.weight_d": ["optimizer.weight_decay="],
    "nameplate fit.precision=mixed": ["fit.precision=mixed_bfloat16", "fit.precision=mixed_float16"],
}


def test_a_real_bash_completes_the_console_script(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK],
        input="".join(f"{line}\n" for line in LINES),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=tmp_path,
    )
    registered, *replies = done.stdout.splitlines()
    assert registered.endswith("-F hydra_bash_completion nameplate")
    assert [reply.split() for reply in replies] == list(LINES.values())
    assert " omegaconf" in done.stderr  # what was imported is told there, line by line
    assert " tensorflow" not in done.stderr


def test_the_script_is_for_the_console_script_and_never_for_every_python() -> None:
    done = command("-sc", "install=bash")
    assert done.stdout.rstrip().endswith("hydra_bash_completion nameplate"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["install=bsh"], "-sc install=bsh: there are bash, fish, zsh. Did you mean 'bash'"),
        ([], "-sc needs install=SHELL or uninstall=SHELL"),
        (["query=bash"], "-sc query=bash: only a shell asks for this"),
    ],
    ids=["shell", "verb", "line"],
)
def test_a_wrong_way_to_ask_is_answered(arguments: list[str], says: str) -> None:
    done = command("-sc", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_goes_on_with_its_words_and_a_path_with_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "rules.txt").touch()
    words = {"fit.xla": ["true", "false"]}
    assert completions(["fit.xla=false"], "nameplate fit.xla=", words) == ["fit.xla=true", "fit.xla=false"]
    assert completions([], "nameplate init.path=ru", words) == ["init.path=rules.txt", "init.path=runs/"]
    assert completions([], "nameplate init.path=runs/", words) == ["init.path=runs/mine/"]
    assert completions(["model=mlp", "model=schema_mlp"], "nameplate model=", words) == ["model=mlp"]
    assert completions(["model.", "model="], "nameplate seed=1 ", words) == ["model.", "model="]
