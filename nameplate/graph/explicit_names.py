"""Whether a caller gave a layer its name, or Keras made it up: noted when the layer is made, kept by its copies.

Keras keeps the arguments of a constructor, but not the name. What was made from a configuration has a name either way,
and nobody knows whose it is.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

from nameplate.graph import keras_private

_MADE_UP = "_nameplate_made_up"  # the name that Keras made up, "" where one was given, None where nobody knows


def has_given_name(layer: Any) -> bool:
    """Tell whether a caller gave a layer its name, as far as that is known.

    Of a layer that was made before this module was imported it is known where Keras has not counted so far.
    """
    if isinstance(layer, keras.layers.InputLayer) and str(layer.name).startswith("keras_tensor"):
        return False  # Keras writes it out where it clones a graph
    if _MADE_UP in vars(layer):
        made_up = vars(layer)[_MADE_UP]
        return made_up is not None and made_up != layer.name
    word, _, number = str(layer.name).rpartition("_")
    word, count = (word, int(number)) if word and number.isdigit() else (str(layer.name), 0)
    return not _from_configuration(layer) and keras_private.automatic_counts().get(word, 0) <= count


def carry(source: Any, target: Any, *, renamed: bool) -> None:
    """Let a copy know of its name what its original does; one that was renamed has a given name."""
    vars(target)[_MADE_UP] = "" if renamed or has_given_name(source) else vars(source).get(_MADE_UP)


def _note() -> None:
    """Let each layer that is made from now on know whether it was given its name."""
    plain = keras.Operation.__init__
    if hasattr(plain, _MADE_UP):
        return

    @functools.wraps(plain)
    def noting(self: Any, name: Any = None) -> None:
        plain(self, name=name)
        if name is None:
            vars(self)[_MADE_UP] = self.name
        elif vars(self).get(_MADE_UP) != name:  # else one constructor hands it on to another
            vars(self)[_MADE_UP] = None if _from_configuration(self) else ""

    setattr(noting, _MADE_UP, True)
    keras.Operation.__init__ = noting


def _from_configuration(layer: Any) -> bool:
    """Tell whether a layer is made from a configuration, which has what a caller hardly gives together."""
    given = keras_private.constructor_arguments(layer)  # with defaults, of which `dtype` has none
    return keras_private.is_deserializing() or ("trainable" in given and given.get("dtype") is not None)


_note()
