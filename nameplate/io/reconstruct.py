"""Reconstruction of lost names: layers recognized by their variables, their place in the graph and their values."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

from nameplate import text_table
from nameplate.arguments import checked
from nameplate.errors import NameplateError
from nameplate.formats import open_weights
from nameplate.graph import model_weights
from nameplate.graph.functional import is_graph, read, values_in
from nameplate.graph.tree import owned_variables, seeds, walk
from nameplate.io.load_weights import require_arrays
from nameplate.naming import names
from nameplate.weights.named import Weights

_BY_NAME = {
    "kernel": ("kernel", "weight", "weights", "w"),
    "bias": ("bias", "b"),
    "gamma": ("gamma", "scale"),
    "beta": ("beta", "offset"),
    "moving_mean": ("moving_mean", "running_mean", "mean"),
    "moving_variance": ("moving_variance", "running_var", "variance"),
    "embeddings": ("embeddings", "embedding", "table"),
    "recurrent_kernel": ("recurrent_kernel",),
    "depthwise_kernel": ("depthwise_kernel",),
    "pointwise_kernel": ("pointwise_kernel",),
}
_KNOWN = {word: role for role, words in _BY_NAME.items() for word in words}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

Lost: TypeAlias = Any  # a keras.Model, weights by name, or the path of a file of weights

CERTAIN, PLACED, VALUED, ORDERED = 1.0, 0.95, 0.9, 0.6  # by form alone, by graph, by values, by order in the file


def role_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the role of each array of one layer, in order; `array_0` if it cannot be known.

    Names decide if all are known. Otherwise four vectors of one length are those of a normalization in Keras' order,
    unless the last has negative numbers, and a vector beside one array of more axes is its bias.
    """
    own_names = [name.rpartition("/")[2] for name in arrays]
    if all(name in _KNOWN for name in own_names):
        return [_KNOWN[name] for name in own_names]
    shapes = [np.shape(value) for value in arrays.values()]
    values = list(arrays.values())
    if len(values) == 4 and all(len(shape) == 1 and shape == shapes[0] for shape in shapes):
        return list(_NORM) if np.min(values[3]) >= 0 else [f"array_{index}" for index in range(4)]
    if len(values) == 2 and len(shapes[0]) > 1 and shapes[1] == shapes[0][-1:]:
        return ["kernel", "bias"]
    if len(values) == 1 and len(shapes[0]) > 1:
        return ["kernel"]
    return [_KNOWN.get(name, f"array_{index}") for index, name in enumerate(own_names)]


class RecoveryError(NameplateError):
    """Names that cannot be reconstructed without guessing."""


@dataclass(frozen=True)
class Match:
    """One layer that was recognized."""

    source: str
    target: str
    confidence: float  # 0 to 1
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Recovery:
    """What was recognized and what was not; `rules` go to `plan`, `load_weights` or `ckpt rename`."""

    matches: tuple[Match, ...]
    ambiguous: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]  # (layers of the source, of the reference)
    unknown: tuple[str, ...]  # layers of the source that match none of the reference
    missing: tuple[str, ...]  # layers of the reference that none of the source matches

    @property
    def complete(self) -> bool:
        """Whether every layer of both sides was recognized."""
        return not (self.ambiguous or self.unknown or self.missing)

    def rules(self, *, least: float = 0.9) -> dict[str, str]:
        """Return `{lost name: name}` for the matches.

        Args:
            least: the confidence that every match must have.

        Raises:
            RecoveryError: if anything is ambiguous or less certain, with all of it.
        """
        doubtful = [match for match in self.matches if match.confidence < least]
        if self.ambiguous or doubtful:
            lines = [f"  {', '.join(olds)} could each be {' or '.join(news)}" for olds, news in self.ambiguous]
            lines += [f"  {match.source} = {match.target}   only {match.confidence:.2f}" for match in doubtful]
            raise RecoveryError("\n".join(["these names would be guesses; write their rules yourself:", *lines]))
        return {match.source: match.target for match in self.matches if match.source != match.target}

    def table(self) -> str:
        """Return a table with a line a layer."""
        rows = [(f"{m.confidence:.2f}", m.source, m.target, ", ".join(m.evidence)) for m in self.matches]
        rows += [("?", ", ".join(olds), " or ".join(news), "ambiguous") for olds, news in self.ambiguous]
        rows += [("-", name, "", "matches nothing in the reference") for name in self.unknown]
        rows += [("-", "", name, "nothing matches it") for name in self.missing]
        return "\n".join(text_table.aligned(rows))

    def json(self) -> str:
        """Return the recovery as JSON."""
        return json.dumps({"complete": self.complete, **asdict(self)}, indent=1)

    def __str__(self) -> str:
        return self.table()


@dataclass
class _Layer:
    name: str
    kind: str  # its class, empty if unknown
    form: tuple[tuple[str, tuple[int, ...]], ...]  # roles and shapes of the variables
    values: tuple[Any, ...]  # arrays in the order of the roles
    before: tuple[int, ...] = ()  # indices of the preceding layers with variables
    ends: tuple[int, ...] = ()  # outputs of the model that it reaches through layers without variables
    place: Hashable = None  # equal for layers at equal positions in their graphs


@checked
def reconstruct(lost: Lost, reference: keras.Model, *, trust_order: bool = False) -> Recovery:
    """Match the layers whose names were lost with those of a reference.

    Nothing is proved: each match comes with its evidence, and a layer without enough evidence is left out.

    Args:
        lost: a model with useless names, or its weights, or a file of them.
        reference: a built model of the same architecture with good names.
        trust_order: whether to match layers that nothing else distinguishes by their order, if the order of both sides
            agrees throughout; such matches are less certain.
    """
    theirs, ours = _layers(lost), _layers(reference)
    classed = isinstance(lost, keras.Model)  # only a model has classes, and a graph
    if classed:
        _refine(theirs)
        _refine(ours)
    groups = _grouped(theirs, ours, classed)
    in_order = trust_order and [_form(layer, classed) for layer in theirs] == [_form(layer, classed) for layer in ours]
    matches: list[Match] = []
    ambiguous: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    unknown: list[str] = []
    missing: list[str] = []
    for olds, news in groups:
        if not news or not olds:
            unknown += [layer.name for layer in olds]
            missing += [layer.name for layer in news]
        elif len(olds) == len(news) == 1:
            matches.append(_match(olds[0], news[0], CERTAIN, "the only layer with these variables and shapes"))
        else:
            _match_alike(olds, news, matches, ambiguous, in_order=in_order)
    return Recovery(tuple(matches), tuple(ambiguous), tuple(unknown), tuple(missing))


def _match_alike(
    olds: Sequence[_Layer],
    news: Sequence[_Layer],
    matches: list[Match],
    ambiguous: list[tuple[tuple[str, ...], tuple[str, ...]]],
    *,
    in_order: bool,
) -> None:
    """Match layers with the same variables by place, then by value, then by order if that is trusted."""
    left_old, left_new = list(olds), list(news)
    by: list[tuple[float, str, Callable[[_Layer], Hashable]]] = [
        (PLACED, "its place in the graph", lambda layer: layer.place),
        (VALUED, "the same values", _fingerprint),
    ]
    for confidence, why, key in by:
        here, there = _by(left_old, key), _by(left_new, key)
        for value, some in here.items():
            others = there.get(value, [])
            if value is not None and len(some) == len(others) == 1:
                matches.append(_match(some[0], others[0], confidence, f"of {len(olds)} alike: {why}"))
                left_old.remove(some[0])
                left_new.remove(others[0])
    if len(left_old) == len(left_new) == 1 and len(olds) == len(news):
        matches.append(_match(left_old[0], left_new[0], PLACED, f"the last of {len(olds)} alike"))
    elif left_old and in_order and len(left_old) == len(left_new):
        for one, other in zip(left_old, left_new, strict=True):
            matches.append(_match(one, other, ORDERED, f"of {len(olds)} alike: the order only"))
    elif left_old or left_new:
        ambiguous.append((tuple(layer.name for layer in left_old), tuple(layer.name for layer in left_new)))


def _match(old: _Layer, new: _Layer, confidence: float, why: str) -> Match:
    evidence = [why]
    if _fingerprint(old) is not None and _fingerprint(old) == _fingerprint(new) and "values" not in why:
        evidence.append("the same values")
    return Match(old.name, new.name, confidence, tuple(evidence))


def _grouped(
    theirs: Sequence[_Layer], ours: Sequence[_Layer], classed: bool
) -> list[tuple[list[_Layer], list[_Layer]]]:
    here, there = (_by(side, lambda layer: _form(layer, classed)) for side in (theirs, ours))
    return [(here.get(form, []), there.get(form, [])) for form in dict.fromkeys([*here, *there])]


def _form(layer: _Layer, classed: bool) -> Hashable:
    return (layer.kind if classed else "", layer.form)


def _by(layers: Sequence[_Layer], key: Callable[[_Layer], Hashable]) -> dict[Hashable, list[_Layer]]:
    groups: dict[Hashable, list[_Layer]] = defaultdict(list)
    for layer in layers:
        groups[key(layer)].append(layer)
    return dict(groups)


def _fingerprint(layer: _Layer) -> Hashable:
    """Return a layer's values as bytes; None if they are all one number, which is no evidence."""
    if not any(np.asarray(value).size > 1 and np.ptp(value) > 0 for value in layer.values):
        return None
    return tuple(np.ascontiguousarray(value).tobytes() for value in layer.values)


# ---- the layers of the two sides --------------------------------------------------------------------------------


def _layers(side: Lost) -> list[_Layer]:
    if isinstance(side, keras.Model):
        return _of_model(side)
    if isinstance(side, Mapping):
        require_arrays(side)
        return _of_weights(side)
    with open_weights(side) as arrays:
        return _of_weights({name: np.asarray(arrays[name]) for name in arrays})


def _of_model(model: Any) -> list[_Layer]:
    arrays = model_weights.read(model)
    seed_states = {f"{name}/state" for name in seeds(model)}
    held: dict[str, list[str]] = defaultdict(list)
    for name, _, owner in owned_variables(model):
        if name not in seed_states:
            held[owner].append(name)
    entries = {entry.name: entry.layer for entry in walk(model)}
    layers = [
        _made(owner, type(entries.get(owner, model)).__name__, {n: arrays[n] for n in own})
        for owner, own in held.items()
    ]
    _link(model, layers, {id(layer): name for name, layer in entries.items()})
    return layers


def _of_weights(weights: Weights) -> list[_Layer]:
    held: dict[str, list[str]] = defaultdict(list)
    for name in weights:
        owner = names.split(name)[0]
        held[owner if not owner.endswith("/vars") else names.split(owner)[0]].append(name)
    return [_made(owner, "", {name: weights[name] for name in own}) for owner, own in held.items()]


def _made(owner: str, kind: str, arrays: Mapping[str, np.ndarray]) -> _Layer:
    """Return a layer with its variables in the order of their roles."""
    roles = role_of({name.removeprefix(f"{owner}/"): value for name, value in arrays.items()})
    ordered = sorted(zip(roles, arrays.values(), strict=True), key=lambda item: item[0])
    form = tuple((role, tuple(value.shape)) for role, value in ordered)
    return _Layer(owner, kind, form, tuple(value for _, value in ordered))


def _link(model: Any, layers: Sequence[_Layer], places: Mapping[int, str]) -> None:
    """Set for each layer which others precede it in the graphs, through layers that have no variables."""
    index_of = {layer.name: index for index, layer in enumerate(layers)}
    containers = [layer for layer in [model, *(entry.layer for entry in walk(model))] if is_graph(layer)]
    for container in containers:
        if not getattr(container, "inputs", None):
            continue
        graph = read(container)
        behind: dict[int, tuple[int, ...]] = {id(head.value): () for head in graph.heads}
        for call in graph.calls:
            taken = tuple(sorted({index for value in call.inputs() for index in behind.get(id(value), ())}))
            own = index_of.get(places.get(id(call.layer), ""))
            if own is not None:
                layers[own].before = tuple(sorted({*layers[own].before, *taken}))
                taken = (own,)
            behind.update((id(value), taken) for value in call.outputs)
        for place, value in enumerate(values_in(graph.outputs) if container is model else ()):
            for index in behind.get(id(value), ()):
                layers[index].ends = (*layers[index].ends, place)


def _refine(layers: Sequence[_Layer]) -> None:
    """Set the place of each layer from what precedes and follows it, to the depth that distinguishes most layers.

    This is colour refinement (Weisfeiler-Leman): colours are rehashed with those of the neighbours until none splits.
    """
    after: dict[int, list[int]] = defaultdict(list)
    for place, layer in enumerate(layers):
        for before in layer.before:
            after[before].append(place)
    colours: list[int] = [hash((layer.kind, layer.form, layer.ends)) for layer in layers]
    for _ in range(len(layers)):
        fresh = [
            hash((colours[place], _sorted(colours, layer.before), _sorted(colours, after[place])))
            for place, layer in enumerate(layers)
        ]
        if len(set(fresh)) == len(set(colours)):
            break
        colours = fresh
    for layer, colour in zip(layers, colours, strict=True):
        layer.place = colour


def _sorted(colours: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(colours[place] for place in places))
