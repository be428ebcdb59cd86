"""Each verb that gives a model, a file or weights says in its docstring what is proved of them and what is not."""

from __future__ import annotations

import re

import pytest

import nameplate

SAYING = [
    *("apply", "attach", "branch", "edit", "enforce", "ensemble", "export", "extract", "flatten", "join", "load"),
    *("load_beside", "load_choosing", "load_weights", "mend", "plan", "prefixed", "rename", "save", "siamese", "write"),
]


@pytest.mark.parametrize("verb", SAYING)
def test_c11_a_verb_says_what_it_proves_and_what_not(verb: str) -> None:
    text = getattr(nameplate, verb).__doc__

    assert re.search(r"\bProved[:,]", text)
    assert "Not proved:" in text


@pytest.mark.parametrize("verb", ["insert", "remove", "replace"])
def test_c11_an_edit_by_itself_refers_to_edit(verb: str) -> None:
    assert "for `edit`" in " ".join(getattr(nameplate, verb).__doc__.split())
