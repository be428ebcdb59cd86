"""Ready maps of other people's architectures onto those of the zoo: `{PyTorch module: layer}`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nameplate.errors import FileFormatError
from nameplate.naming import names

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(conv\d|bn\d|projection_conv|projection_bn)")
_STEM = {"stem_conv": "conv1", "stem_bn": "bn1"}
_PROJECTION = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}


def resnet(variables: Iterable[str]) -> dict[str, str]:
    """Return the map of torchvision's `resnet18`, `34` or `50` onto `trainer.models.resnet` of the same depth.

    The output, whose name is the data's, is `fc`.

    Args:
        variables: the qualified names of the model's variables, as `nameplate.variables(model)` has them.

    Raises:
        FileFormatError: when they are not those of a residual network of the zoo.
    """
    layers = list(dict.fromkeys(names.split(name)[0] for name in variables))
    found: dict[str, str] = {}
    others = []
    for layer in layers:
        block = _BLOCK.fullmatch(layer)
        if block:
            stage, number, part = block.groups()
            found[f"layer{stage}.{int(number) - 1}.{_PROJECTION.get(part, part)}"] = layer
        elif layer in _STEM:
            found[_STEM[layer]] = layer
        else:
            others.append(layer)
    if len(others) != 1 or not found:
        raise FileFormatError(
            f"a residual network of the zoo has stem_conv, stage1_block1_conv1, ... and one output; beside them there "
            f"are {', '.join(map(repr, others[:5])) or 'none'}"
        )
    return {**found, "fc": others[0]}
