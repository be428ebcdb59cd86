"""Every architecture small enough to be built in a test, with data that fits it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import keras
import numpy as np

from trainer.models import ARCHITECTURES

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An architecture, its parameters, and the shapes of its inputs."""

    architecture: str
    shape: Shape = (8, 8, 1)
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Shape]:
        names = ("left", "right") if self.architecture == "two_tower" else ("image",)
        return dict.fromkeys(names, self.shape)

    @property
    def outputs(self) -> dict[str, int]:
        return {"same": 2, "sum": 19} if self.architecture == "two_tower" else {"label": 10}

    def build(self) -> keras.Model:
        module, _, function = ARCHITECTURES[self.architecture].rpartition(".")
        model = getattr(import_module(module), function)(self.inputs, self.outputs, **self.parameters)
        assert isinstance(model, keras.Model)
        return model

    def batch(self, size: int = 3) -> Any:
        """Return an array for one input, a dictionary of arrays for several."""
        random = np.random.default_rng(0)
        arrays = {name: random.random((size, *shape), dtype=np.float32) for name, shape in self.inputs.items()}
        return arrays if len(arrays) > 1 else next(iter(arrays.values()))


@cache
def built(name: str) -> keras.Model:
    """Return one of `SMALL`, built once for all tests that only look at it."""
    return SMALL[name].build()


_MOBILE = {"enlarge_to": 32, "arguments": {"alpha": 0.35}}

SMALL = {
    "mlp": Case("mlp", parameters={"hidden": [8, 4], "dropout": 0.5}),
    "mlp_vector": Case("mlp", (5,), {"hidden": []}),
    "mlp_number": Case("mlp", (), {"hidden": [3]}),
    "convnet": Case("convnet", parameters={"width": 8}),
    "convnet_group": Case("convnet", (12, 9, 3), {"width": 4, "blocks": [1, 2], "norm": "group"}),
    "convnet_layer": Case("convnet", (1, 1, 1), {"width": 4, "norm": "layer", "dropout": 0.0}),
    "convnet_no_norm": Case("convnet", (7, 7, 2), {"width": 4, "norm": "none"}),
    "resnet18": Case("resnet", parameters={"width": 4}),
    "resnet18_large": Case("resnet", (64, 65, 3), {"width": 4}),
    "resnet34": Case("resnet", (32, 32, 3), {"depth": 34, "width": 2}),
    "resnet50": Case("resnet", (16, 16, 3), {"depth": 50, "width": 2, "stem": "large"}),
    "vit": Case("vit", parameters={"width": 8, "layers": 2, "heads": 2, "dropout": 0.1}),
    "vit_wide": Case("vit", (12, 24, 3), {"width": 8, "layers": 1, "heads": 4, "patch": 6, "mlp_width": 4}),
    "two_tower": Case("two_tower", parameters={"width": 4, "features": 8, "hidden": 4}),
    "two_tower_vector": Case("two_tower", (6,), {"features": 8, "hidden": 4}),
    "one_tower": Case("one_tower", parameters={"width": 4, "features": 8, "hidden": 4}),
    "subclassed": Case("subclassed", parameters={"width": 8, "layers": 2, "dropout": 0.1}),
    "subclassed_padded": Case("subclassed", (9, 14, 3), {"width": 8, "layers": 1, "patch": 4}),
    "applications": Case("applications", parameters=_MOBILE),
    "applications_top": Case(
        "applications",
        (32, 32, 3),
        {"name": "mobilenet", "include_top": True, "arguments": {"alpha": 0.25, "depth_multiplier": 1}},
    ),
}

# One of every kind: the others are longer or have other shapes.
SHORT = [
    "mlp",
    "mlp_number",
    "convnet",
    "convnet_group",
    "convnet_no_norm",
    "resnet18",
    "vit",
    "two_tower",
    "one_tower",
]
SHORT += ["subclassed", "applications"]

# What tests/golden/names/<name>.txt holds: the layers that a user gets without setting anything but a size.
GOLDEN = {
    "mlp": Case("mlp"),
    "convnet": Case("convnet"),
    "resnet18": Case("resnet", parameters={"width": 1}),
    "resnet34": Case("resnet", parameters={"depth": 34, "width": 1}),
    "resnet50": Case("resnet", parameters={"depth": 50, "width": 1}),
    "vit": Case("vit"),
    "two_tower": Case("two_tower"),
    "one_tower": Case("one_tower"),
    "subclassed": Case("subclassed"),
    "applications": Case("applications", parameters=_MOBILE),
}
