"""Drawings as pictures: by Graphviz where it is installed, and a plain answer where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import pytest
from keras import layers

import nameplate
from nameplate.graph.functional import SurgeryError
from tests.nameplate.naming_models import functional

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def test_before_and_after_are_two_frames_of_one_dot_graph() -> None:
    model = functional()
    after = nameplate.insert(model, layers.ReLU(name="act"), after="norm", report=lambda _: None)
    drawn = nameplate.draw(model, "norm", reach=1, style="dot", after=after).splitlines()

    assert drawn[0] == "digraph {"
    assert drawn[-1] == "}"
    assert [line.strip() for line in drawn if "label=" in line] == [
        'label="flat before"',
        'a0 [label="hidden\\nDense (n, 5)"]',
        'a1 [label="norm\\nBatchNormalization (n, 5)"]',
        'a2 [label="~drop\\nDropout (n, 5)", color="orange"]',
        'label="flat after"',
        'b0 [label="hidden\\nDense (n, 5)"]',
        'b1 [label="norm\\nBatchNormalization (n, 5)"]',
        'b2 [label="+act\\nReLU (n, 5)", color="darkgreen"]',
    ]


def test_a_quote_in_a_name_stays_text() -> None:
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.Dense(2, name="head")(image), name="net")
    model.get_layer("head").name = 'he"ad\\'
    assert 'label="he\\"ad\\\\\\nDense (n, 2)"' in nameplate.draw(model, style="dot")


@needs_dot
@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_graphviz_draws_a_file(suffix: str, begins: bytes, tmp_path: Path) -> None:
    text = nameplate.draw(functional(), to=tmp_path / "new" / f"graph{suffix}")
    assert (tmp_path / "new" / f"graph{suffix}").read_bytes().startswith(begins)
    assert text == nameplate.draw(functional(), style="dot")
    assert [each.name for each in (tmp_path / "new").iterdir()] == [f"graph{suffix}"]


@needs_dot
def test_an_svg_has_every_name_before_and_after_an_edit(tmp_path: Path) -> None:
    model = functional()
    nameplate.draw(model, after=nameplate.remove(model, "drop", report=lambda _: None), to=tmp_path / "edit.svg")
    drawn = (tmp_path / "edit.svg").read_text()
    for name in ("flat before", "flat after", "&#45;drop<", ">norm<", "~logits<"):
        assert name in drawn


def test_without_graphviz_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SurgeryError, match=r"dot is not installed.*apt install graphviz.*style='mermaid'"):
        nameplate.draw(functional(), to=tmp_path / "graph.svg")
    assert not list(tmp_path.iterdir())


@needs_dot
def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SurgeryError, match="cannot be written"):
        nameplate.draw(functional(), to=tmp_path / "file" / "graph.svg")
