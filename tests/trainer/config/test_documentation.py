"""Every key of the configuration is documented where it is declared."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from trainer.config.run_config import RunConfig
from trainer.config.schemas import SCHEMAS, classes_of, comments_of


def sections() -> list[type]:
    """Return the dataclasses of all options, with those inside them and their base classes."""
    found: list[type] = [RunConfig, *(schema for schemas in SCHEMAS.values() for schema in classes_of(schemas))]
    found += [type(getattr(section(), key.name)) for section in found[1:] for key in fields(section)]
    bases = [base for section in found for base in section.__mro__ if is_dataclass(base)]
    return sorted(dict.fromkeys(bases), key=lambda section: section.__name__)


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_key_has_a_comment_in_its_dataclass(section: type) -> None:
    assert [key.name for key in fields(section) if key.name not in comments_of(section)] == []  # type: ignore[arg-type]
