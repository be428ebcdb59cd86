from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import nameplate
from nameplate.io.reconstruct import RecoveryError


def net(*, named: bool, ends: int = 2) -> keras.Model:
    def name(text: str) -> str | None:
        return text if named else None

    x = image = keras.Input((8, 8, 3), name=name("image"))
    x = layers.Conv2D(8, 3, padding="same", name=name("stem"))(x)
    x = layers.BatchNormalization(name=name("stem_norm"))(x)
    for block in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=name(f"block{block}_conv"))(x)
        y = layers.BatchNormalization(name=name(f"block{block}_norm"))(y)
        x = layers.Add(name=name(f"block{block}_add"))([x, y])
    x = layers.GlobalAveragePooling2D(name=name("pool"))(x)
    heads = [layers.Dense(4, name=name(f"head{place}"))(x) for place in range(ends)]
    return keras.Model(image, heads, name="net")


def test_a_model_whose_names_were_lost_is_recognised_by_its_graph() -> None:
    reference, lost = net(named=True), net(named=False)
    found = nameplate.reconstruct(lost, reference)
    named = nameplate.rename(lost, found.rules())

    assert found.complete
    assert list(nameplate.read(named)) == list(nameplate.read(reference))
    assert {match.confidence for match in found.matches} == {1.0, 0.95}
    assert "its place in the graph" in found.table()


def test_siblings_that_nothing_tells_apart_are_refused_not_guessed() -> None:
    reference, lost = net(named=True), net(named=False)
    found = nameplate.reconstruct(nameplate.read(lost), reference)

    assert [match.target for match in found.matches] == ["stem"]
    assert len(found.ambiguous) == 3
    with pytest.raises(RecoveryError, match="could each be head0 or head1"):
        found.rules()


def test_the_order_of_a_file_is_evidence_only_where_it_is_trusted() -> None:
    reference, lost = net(named=True), net(named=False)
    found = nameplate.reconstruct(nameplate.read(lost), reference, trust_order=True)

    assert found.complete
    with pytest.raises(RecoveryError, match=r"only 0\.60"):
        found.rules()
    assert len(found.rules(least=0.5)) == 8


def test_equal_values_are_evidence() -> None:
    reference = net(named=True)
    lost = {f"layers/{place}/{name.rpartition('/')[2]}": value for place, name, value in numbered(reference)}
    found = nameplate.reconstruct(lost, reference)

    assert {match.target for match in found.matches} == {"stem", "block0_conv", "block1_conv", "head0", "head1"}
    assert all(match.confidence >= 0.9 for match in found.matches)


def numbered(model: keras.Model) -> list[tuple[int, str, np.ndarray]]:
    owners = list(dict.fromkeys(name.rpartition("/")[0] for name in nameplate.read(model)))
    return [(owners.index(name.rpartition("/")[0]), name, value) for name, value in nameplate.read(model).items()]


def test_what_fits_nothing_is_told_on_both_sides(tmp_path: Path) -> None:
    reference = net(named=True)
    extra = nameplate.insert(reference, layers.Dense(7, name="more"), after="pool", rebuild=True, report=lambda _: None)
    found = nameplate.reconstruct(extra, reference)

    assert "more" in found.unknown
    assert set(found.missing) == {"head0", "head1"}
    assert not found.complete


def test_every_layer_of_a_real_network_is_recognised() -> None:
    reference = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=4)
    lost = nameplate.rename(reference, lambda layer: f"x_{layer.name}")
    found = nameplate.reconstruct(lost, reference)

    assert found.complete
    assert all(match.source == f"x_{match.target}" for match in found.matches)
