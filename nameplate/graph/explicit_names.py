"""Whether a caller named a layer or Keras made up the name: recorded when the layer is created, kept by its copies.

Keras records the arguments of a constructor, but not the name. A layer made from a configuration always gets a name,
and whose it was is unknown.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

from nameplate.graph import keras_private

_MADE_UP = "_nameplate_made_up"  # the name that Keras made up; "" if a caller chose it, None if that is unknown


def has_given_name(layer: Any) -> bool:
    """Return whether a caller named a layer, as far as is known.

    For a layer created before this module was imported, the name is a caller's if its number is beyond Keras' counter.
    """
    if isinstance(layer, keras.layers.InputLayer) and str(layer.name).startswith("keras_tensor"):
        return False  # Keras passes it explicitly when it clones a graph
    if _MADE_UP in vars(layer):
        made_up = vars(layer)[_MADE_UP]
        return made_up is not None and made_up != layer.name
    word, _, number = str(layer.name).rpartition("_")
    word, count = (word, int(number)) if word and number.isdigit() else (str(layer.name), 0)
    return not _from_configuration(layer) and keras_private.automatic_counts().get(word, 0) <= count


def copy_record(source: Any, target: Any, *, renamed: bool) -> None:
    """Copy the record of who chose the name; a renamed copy has a name that a caller chose."""
    vars(target)[_MADE_UP] = "" if renamed or has_given_name(source) else vars(source).get(_MADE_UP)


def _install() -> None:
    """Make every operation that is created from now on record who chose its name."""
    original = keras.Operation.__init__
    if hasattr(original, _MADE_UP):
        return

    @functools.wraps(original)
    def recording(self: Any, name: Any = None) -> None:
        original(self, name=name)
        if name is None:
            vars(self)[_MADE_UP] = self.name
        elif vars(self).get(_MADE_UP) != name:  # otherwise one constructor passes on what Keras made up in another
            vars(self)[_MADE_UP] = None if _from_configuration(self) else ""

    setattr(recording, _MADE_UP, True)
    keras.Operation.__init__ = recording


def _from_configuration(layer: Any) -> bool:
    """Return whether a layer was made from a configuration, which passes arguments that a caller rarely combines."""
    given = keras_private.constructor_arguments(layer)  # with defaults; `dtype` has none
    return keras_private.is_deserializing() or ("trainable" in given and given.get("dtype") is not None)


_install()
