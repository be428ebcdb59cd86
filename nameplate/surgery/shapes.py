"""What the edits make of every shape downstream, before anything is built.

A layer whose inputs stay as they were is not looked at. One whose inputs change is asked through a copy without values
(Keras makes its variables in a stateless scope, where they have shapes only): what it would give, and whether its
weights would keep their shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from nameplate.errors import cause
from nameplate.graph import keras_private
from nameplate.graph.clone import Copier
from nameplate.graph.copy_state import restore_initializers
from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value, is_graph, listed, same, values_in
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, seeds, walk
from nameplate.surgery.addresses import Addresses
from nameplate.surgery.changes import Newcomer

Rebuild = bool | Collection[str]  # which layers may get new weights where the old ones no longer fit


@dataclass(frozen=True)
class Fault:
    """A layer that cannot take what it would get."""

    name: str
    has: str
    gets: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.has}; it would get {self.gets}: {self.why}"


class ShapePropagation:
    """Carries specs through the graphs; what no layer can take is in `faults`."""

    def __init__(
        self,
        addresses: Addresses,
        edited: Collection[int],
        newcomers: Mapping[int, Newcomer],
        own_names: Mapping[int, str],
        rebuild: Rebuild,
    ) -> None:
        self.faults: list[Fault] = []
        self.rebuilt: dict[int, Any] = {}  # layers whose weights get other shapes, by id
        self.opened: set[int] = set(edited)  # ids of containers that are made anew
        self._addresses = addresses
        self._newcomers = newcomers
        self._own_names = own_names
        self._rebuild = rebuild
        self._fitting: set[str] = set()  # names of layers that could get new weights
        self._widened: set[int] = set()  # ids of heads that take another shape than they did
        self._needs: dict[int, dict[str, tuple[int, ...]]] = {}  # by layer, the weights that a call of it wants
        self._as_ever: dict[int, tuple[Graph, Call, Sequence[Any]]] = {}  # by layer, a call whose inputs stay

    def run(self, graph: Graph) -> None:
        """Give every value of a graph its spec."""
        for head in graph.heads:
            head.value.spec = head.spec
        self._through(graph)

    def refuse(self) -> None:
        """Raise what was found.

        Raises:
            SurgeryError: with every consumer that cannot take its new shape, what it has and what it would get.
        """
        for key in self.rebuilt.keys() & self._as_ever.keys():
            graph, call, specs = self._as_ever[key]
            self._fault(graph, call, specs, f"at another call it needs {_told(self._needs[key])}")
        if not self.faults:
            return
        several = len(self.faults) > 1
        head = f"{len(self.faults)} layer{'s' * several} cannot take what the edit would give; nothing was built:"
        tail = []
        if self._fitting:
            what = ", ".join(repr(each) for each in sorted(self._fitting))
            tail = [f"Pass rebuild=True, or rebuild=[{what}], to give them new weights."]
        raise SurgeryError("\n".join([head, *(f"  {fault}" for fault in self.faults), *tail]))

    def _through(self, graph: Graph) -> None:
        for call in graph.calls:
            taken = call.inputs()
            specs = [value.spec for value in taken]
            if any(spec is None for spec in specs):
                gives: Sequence[Any] = call.gave
            elif self._as_before(call, specs):
                self._as_ever[id(call.layer)] = graph, call, specs
                gives = call.gave
            else:
                gives = self._asked(graph, call, specs)
            for place, value in enumerate(call.outputs):
                value.spec = gives[place] if place < len(gives) else None

    def _as_before(self, call: Call, specs: Sequence[Any]) -> bool:
        if call.took is None or id(call.layer) in self.opened or len(specs) != len(call.took):
            return False
        return all(same(spec, old) for spec, old in zip(specs, call.took, strict=True))

    def _asked(self, graph: Graph, call: Call, specs: Sequence[Any]) -> Sequence[Any]:
        """Return what a call gives for these inputs; what goes wrong becomes a fault, and the old outputs go on."""
        try:
            gives = self._nested(call, specs) if self._is_open(call, specs) else self._probed(graph, call, specs)
        except SurgeryError:
            raise
        except Exception as error:  # whatever a layer says to a shape that it cannot take
            self._fault(graph, call, specs, cause(error))
            return call.gave
        if len(gives) != len(call.outputs):
            lost = f"gives {len(gives)} tensors where {len(call.outputs)} are used"
            self._fault(graph, call, specs, lost)
            return call.gave
        return gives

    # ---- a container ----------------------------------------------------------------------------------------

    def _is_open(self, call: Call, specs: Sequence[Any]) -> bool:
        """Tell whether a call goes into a graph that must be made anew for it."""
        if not is_graph(call.layer) or id(call.layer) in self._newcomers:
            return False
        if id(call.layer) in self.opened:
            return True
        heads = self._addresses.graph(call.layer).heads
        return len(heads) == len(specs) and not all(
            _fits(spec, head.spec) for spec, head in zip(specs, heads, strict=True)
        )

    def _nested(self, call: Call, specs: Sequence[Any]) -> Sequence[Any]:
        graph = self._addresses.graph(call.layer)
        if len(graph.heads) != len(specs):
            raise ValueError(f"{call.layer.name!r} takes {len(graph.heads)} tensors")
        for place, (head, spec) in enumerate(zip(graph.heads, specs, strict=True)):
            unchanged = call.took is not None and same(spec, call.took[place]) and head.spec is not None
            if not unchanged and not _fits(spec, head.spec):
                self._widen(graph, head, spec)
        self.opened.add(id(call.layer))
        self.run(graph)
        declared = [value.spec for value in values_in(graph.outputs)]
        if all(same(spec, head.spec) for spec, head in zip(specs, graph.heads, strict=True)):
            return declared
        if call.took is not None and self._gives_as_before(graph, declared) and _all_same(specs, call.took):
            return call.gave
        for head, spec in zip(graph.heads, specs, strict=True):  # the very shapes of this call, not the declared ones
            head.value.spec = spec
        self._through(graph)
        return [value.spec for value in values_in(graph.outputs)]

    def _widen(self, graph: Graph, head: Head, spec: Any) -> None:
        if head.layer is not None and id(head.layer) in self._newcomers:
            where = self._addresses.name(graph.container)
            raise ValueError(f"its new input takes {listed([head.spec])}, and {where!r} gets {listed([spec])}")
        already = id(head) in self._widened
        head.spec = _merged(head.spec, spec) if already else _without_batch(spec, head.spec)
        self._widened.add(id(head))

    def _gives_as_before(self, graph: Graph, declared: Sequence[Any]) -> bool:
        return _all_same(declared, list(getattr(graph.container, "outputs", None) or []))

    # ---- one layer ------------------------------------------------------------------------------------------

    def _probed(self, graph: Graph, call: Call, specs: Sequence[Any]) -> Sequence[Any]:
        layer = call.layer
        args, kwargs = tree.map_structure(_tensor, (call.args, call.kwargs))
        if not isinstance(layer, keras.Layer):
            return tree.flatten(layer.compute_output_spec(*args, **kwargs))
        if is_graph(layer) and layer.built:
            keras_private.assert_takes(layer, *args)
            return tree.flatten(layer.compute_output_spec(*args))
        fresh = self._fresh(layer)
        with keras_private.undisturbed(), keras_private.probing(), keras_private.live_code(), _objects(layer):
            gives = tree.flatten(fresh(*args, **kwargs))
        if layer.built:
            self._compare(graph, call, specs, fresh)
        needs, chosen_here = weight_shapes(fresh), id(layer) in self._newcomers or id(layer) in self.rebuilt
        if chosen_here and self._needs.setdefault(id(layer), needs) != needs:
            self._fault(graph, call, specs, f"at another call it needs {_told(self._needs[id(layer)])}")
        return gives

    def _fresh(self, layer: Any) -> Any:
        """Return a copy of a layer that has not seen a shape.

        Raises:
            RebuildError: when its class cannot be made again, with the line to add.
        """
        copier = Copier({}, self._addresses.names)
        with keras_private.undisturbed(), keras_private.probing(), keras_private.live_code(), _objects(layer):
            fresh = copier.copy(layer)
            if fresh is not None:
                restore_initializers(fresh)
        if copier.faults:
            raise SurgeryError("\n".join(["the edit cannot be done:", *(f"  {fault}" for fault in copier.faults)]))
        return fresh

    def _compare(self, graph: Graph, call: Call, specs: Sequence[Any], fresh: Any) -> None:
        """Find weights that would get another shape."""
        before, after = weight_shapes(call.layer), weight_shapes(fresh)
        changed = [name for name in before if after.get(name) != before[name]]
        if not changed and len(before) == len(after):
            return
        name = self._name(graph, call)
        if id(call.layer) in self._newcomers:
            has = ", ".join(f"{key} {before[key]}" for key in changed)
            self._fault(graph, call, specs, f"the layer that was given has {has}, made for another shape")
        elif self._rebuild is True or (not isinstance(self._rebuild, bool) and name in self._rebuild):
            self.rebuilt[id(call.layer)] = call.layer
        else:
            needs = ", ".join(f"{key} {after.get(key, 'gone')}" for key in changed)
            self._fitting.add(name)
            self._fault(graph, call, specs, f"it would need {needs}")

    def _name(self, graph: Graph, call: Call) -> str:
        if id(call.layer) in self._newcomers:
            container = self._addresses.name(graph.container)
            return "/".join(part for part in (container, self._own_names[id(call.layer)]) if part)
        return self._addresses.name(call.layer)

    def _fault(self, graph: Graph, call: Call, specs: Sequence[Any], why: str) -> None:
        name = self._name(graph, call)
        if any(fault.name == name for fault in self.faults):
            return
        kind = type(call.layer).__name__
        held = weight_shapes(call.layer) if isinstance(call.layer, keras.Layer) and not is_graph(call.layer) else {}
        has = ", ".join(f"{key} {shape}" for key, shape in held.items())
        was = f" for {listed(call.took)}" if call.took else ""
        told = f"{kind} has {has}{was}" if has else f"{kind} takes{was[4:]}" if was else f"{kind} is new here"
        self.faults.append(Fault(name, told, listed(specs), why))


def weight_shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    """Return `{variable name within the layer: shape}` without the states of seeds."""
    states = {id(each.state) for each in seeds(layer).values()}
    return {name: tuple(each.shape) for name, each, _ in owned_variables(layer) if id(each) not in states}


def _told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"


def _objects(layer: Any) -> Any:
    return keras.saving.custom_object_scope(custom_objects([layer, *(entry.layer for entry in walk(layer))]))


def _tensor(leaf: Any) -> Any:
    if not isinstance(leaf, Value):
        return leaf
    return keras.KerasTensor(tuple(leaf.spec.shape), leaf.spec.dtype, sparse=leaf.spec.sparse)


def _fits(spec: Any, declared: Any) -> bool:
    """Tell whether an input that is declared so takes this tensor."""
    if declared is None or len(spec.shape) != len(declared.shape):
        return declared is None
    return all(there is None or here == there for here, there in zip(spec.shape, declared.shape, strict=True))


def _merged(one: Any, other: Any) -> Any:
    if len(one.shape) != len(other.shape):
        raise ValueError(f"it is called on {listed([one])} and on {listed([other])}")
    shape = [here if here == there else None for here, there in zip(one.shape, other.shape, strict=True)]
    return keras.KerasTensor(tuple(shape), one.dtype, sparse=one.sparse)


def _without_batch(spec: Any, declared: Any) -> Any:
    """Return the spec of an input that takes this: its own dtype, and its own word on the size of a batch."""
    return keras.KerasTensor((declared.shape[0], *spec.shape[1:]), declared.dtype, sparse=declared.sparse)


def _all_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
