"""Ready maps from torchvision's architectures to this project's: `{PyTorch module: layer}`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nameplate.errors import FileFormatError
from nameplate.naming import names

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(conv\d|bn\d|projection_conv|projection_bn)")
_STEM = {"stem_conv": "conv1", "stem_bn": "bn1"}
_PROJECTION = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}


def resnet(variables: Iterable[str]) -> dict[str, str]:
    """Return the map from torchvision's `resnet18`, `34` or `50` to `models.resnet` of the same depth.

    The output layer, which is named after the data, is `fc`.

    Args:
        variables: the qualified names of the model's variables, as in `nameplate.variables(model)`.

    Raises:
        FileFormatError: when they are not those of this project's residual networks.
    """
    layers = list(dict.fromkeys(names.split(name)[0] for name in variables))
    modules: dict[str, str] = {}
    others = []
    for layer in layers:
        block = _BLOCK.fullmatch(layer)
        if block:
            stage, number, part = block.groups()
            modules[f"layer{stage}.{int(number) - 1}.{_PROJECTION.get(part, part)}"] = layer
        elif layer in _STEM:
            modules[_STEM[layer]] = layer
        else:
            others.append(layer)
    if len(others) != 1 or not modules:
        raise FileFormatError(
            "a residual network of this project has stem_conv, stage1_block1_conv1, ... and one output layer; other "
            f"layers here are {', '.join(map(repr, others[:5])) or 'none'}"
        )
    return {**modules, "fc": others[0]}
