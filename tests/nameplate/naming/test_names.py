from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.naming import names

EDGES = [
    "",
    " ",
    "a b",
    "a/b",
    "a:0",
    "é",
    "_a",
    "-a",
    ".a",
    "..",
    "a\n",
    "a\x00",
    "a" * 201,
    "null",
    "NULL",
    "con",
    "a\u202eb",
    "ａ",
]
SOUND = ["a", "0", "A.b-c_d", "conv2d_1", "a" * 200, "layer1.0.conv1", "nullable"]


@pytest.mark.parametrize("name", EDGES)
def test_the_grammar_refuses(name: str) -> None:
    assert names.fault(name)


@pytest.mark.parametrize("name", SOUND)
def test_the_grammar_takes(name: str) -> None:
    assert names.fault(name) is None


@pytest.mark.parametrize("thing", [5, None, b"a", 1.5])
def test_a_name_that_is_not_a_string_is_reported(thing: object) -> None:
    assert "not a string" in (names.fault(thing) or "")


@given(st.text(max_size=30))
def test_the_grammar_is_its_regular_expression(name: str) -> None:
    written = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name) is not None

    assert (names.fault(name) is None) == (written and name.casefold() not in names.RESERVED)


@given(st.text(max_size=300))
def test_what_is_sanitized_is_sound_empty_or_reserved(name: str) -> None:
    mended = names.sanitized(name)

    assert not mended or names.fault(mended) is None or mended.casefold() in names.RESERVED


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]", fullmatch=True))
def test_a_sound_name_is_left_as_it_is(name: str) -> None:
    assert names.sanitized(name) == name


@pytest.mark.parametrize(
    ("name", "class_name", "automatic"),
    [
        ("dense", "Dense", True),
        ("dense_12", "Dense", True),
        ("dense1", "Dense", False),
        ("dense_a", "Dense", False),
        ("head_dense", "Dense", False),
        ("conv2d_3", "Conv2D", True),
        ("multi_head_attention_1", "MultiHeadAttention", True),
        ("forward_lstm_2", "LSTM", True),
        ("forward_read", "LSTM", False),
        ("input_layer", "InputLayer", True),
        ("keras_tensor_7", "InputLayer", True),
        ("conv2d", "Dense", False),
    ],
)
def test_names_that_keras_makes_up_are_known(name: str, class_name: str, automatic: bool) -> None:
    assert names.is_automatic(name, class_name) is automatic


def test_qualified_names_join_and_split() -> None:
    assert names.join("", "a") == "a"
    assert names.join("a/b", "c") == "a/b/c"
    assert names.split("a/b/c") == ("a/b", "c")
    assert names.split("a") == ("", "a")
    assert names.slot("a/kernel", "momentum") == "a/kernel@momentum"
