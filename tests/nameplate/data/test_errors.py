from __future__ import annotations

import pytest

from nameplate.data.errors import CLOSE, OPEN, DataError, data_error, refuse
from nameplate.errors import NameplateError


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(NameplateError, match=r"^2 reasons not to use the data:\n  one\n  two$"):
        refuse(iter(["one", "two"]))
    with pytest.raises(DataError, match=r"^the data cannot be used:\n  one$"):
        refuse(["one"])
    refuse([])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"While: assertion failed: [{OPEN}a\\n  /data/\\303\\251.png{CLOSE}]\n\t [[node]]", "a\n  /data/é.png"),
        (f"ValueError: {OPEN}/data/é: cut{CLOSE}\nTraceback", "/data/é: cut"),
        (f"Name: {OPEN}a: record 2{CLOSE}, Feature: label is lost. [Op:P]", "a: record 2: Feature: label is lost"),
        ("some other error", None),
    ],
)  # fmt: skip
def test_the_words_of_a_source_are_found_in_what_tensorflow_makes_of_them(message: str, told: str | None) -> None:
    found = data_error(RuntimeError(message))
    assert (str(found) if found else None) == told
