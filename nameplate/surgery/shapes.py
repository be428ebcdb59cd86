"""Shape propagation: the shape of every tensor downstream of the edits, before anything is built.

A layer whose inputs keep their shapes is skipped. For one whose inputs change, a copy without values is called (in a
stateless scope Keras creates variables that have a shape only), which shows the shapes of its outputs and weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from nameplate.errors import cause, worded
from nameplate.graph import keras_private
from nameplate.graph.clone import Copier
from nameplate.graph.copy_state import restore_initializers
from nameplate.graph.functional import Call, Graph, Head, SurgeryError, Value, is_graph, listed, same, values_in
from nameplate.graph.serializable import custom_objects
from nameplate.graph.tree import owned_variables, seeds, walk
from nameplate.surgery.addresses import Addresses
from nameplate.surgery.changes import Newcomer

Rebuild = bool | Collection[str]  # which layers may get new weights if the old ones no longer fit


@dataclass(frozen=True)
class Fault:
    """A layer that cannot take its new inputs."""

    name: str
    has: str
    gets: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.has}; it would get {self.gets}: {self.why}"


class ShapePropagation:
    """Propagates specs through the graphs, and collects the layers that cannot take them in `faults`."""

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
        self.opened: set[int] = set(edited)  # ids of the containers to rebuild from their graphs
        self._addresses = addresses
        self._newcomers = newcomers
        self._own_names = own_names
        self._rebuild = rebuild
        self._rebuildable: set[str] = set()  # names of the layers that new weights would fix
        self._widened: set[int] = set()  # ids of the heads whose shape changes
        self._needs: dict[int, dict[str, tuple[int, ...]]] = {}  # by id of a layer, the weights that a call requires
        self._unchanged: dict[int, tuple[Graph, Call, Sequence[Any]]] = {}  # by id of a layer, one old call

    def run(self, graph: Graph) -> None:
        """Set the spec of every value of a graph."""
        for head in graph.heads:
            head.value.spec = head.spec
        self._through(graph)

    def refuse(self) -> None:
        """Refuse the edit if there are faults.

        Raises:
            SurgeryError: with every consumer that cannot take its new shape, what it has and what it would get.
        """
        for key in self.rebuilt.keys() & self._unchanged.keys():
            graph, call, specs = self._unchanged[key]
            self._fault(graph, call, specs, f"at another call it needs {_shapes_text(self._needs[key])}")
        if not self.faults:
            return
        several = len(self.faults) > 1
        head = f"{len(self.faults)} layer{'s' * several} cannot take the shapes after the edit; nothing was built:"
        tail = []
        if self._rebuildable:
            listed_names = ", ".join(map(repr, sorted(self._rebuildable)))
            wanted = f"rebuild=True, or rebuild=[{listed_names}],"
            keys = f"rebuild: true, or rebuild: [{listed_names.replace(chr(39), '')}],"
            tail = [f"Pass {worded(keys=keys, arguments=wanted)} to give them new weights."]
        raise SurgeryError("\n".join([head, *(f"  {fault}" for fault in self.faults), *tail]))

    def _through(self, graph: Graph) -> None:
        for call in graph.calls:
            taken = call.inputs()
            specs = [value.spec for value in taken]
            if any(spec is None for spec in specs):
                results: Sequence[Any] = call.gave
            elif self._as_before(call, specs):
                self._unchanged[id(call.layer)] = graph, call, specs
                results = call.gave
            else:
                results = self._results(graph, call, specs)
            for place, value in enumerate(call.outputs):
                value.spec = results[place] if place < len(results) else None

    def _as_before(self, call: Call, specs: Sequence[Any]) -> bool:
        if call.took is None or id(call.layer) in self.opened or len(specs) != len(call.took):
            return False
        return all(same(spec, old) for spec, old in zip(specs, call.took, strict=True))

    def _results(self, graph: Graph, call: Call, specs: Sequence[Any]) -> Sequence[Any]:
        """Return the specs of a call's outputs for these inputs; after a fault, those of the original."""
        try:
            results = self._nested(call, specs) if self._is_open(call, specs) else self._probed(graph, call, specs)
        except SurgeryError:
            raise
        except Exception as error:  # a layer may raise anything for a shape that it cannot take
            self._fault(graph, call, specs, cause(error))
            return call.gave
        if len(results) != len(call.outputs):
            self._fault(graph, call, specs, f"has {len(results)} outputs where {len(call.outputs)} are used")
            return call.gave
        return results

    # ---- a container ----------------------------------------------------------------------------------------

    def _is_open(self, call: Call, specs: Sequence[Any]) -> bool:
        """Return whether a call is of a container that must be rebuilt from its graph."""
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
        if call.took is not None and self._has_old_outputs(graph, declared) and _all_same(specs, call.took):
            return call.gave
        for head, spec in zip(graph.heads, specs, strict=True):  # the shapes of this call, not the declared ones
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

    def _has_old_outputs(self, graph: Graph, declared: Sequence[Any]) -> bool:
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
            results = tree.flatten(fresh(*args, **kwargs))
        if layer.built:
            self._compare(graph, call, specs, fresh)
        needs, is_new = weight_shapes(fresh), id(layer) in self._newcomers or id(layer) in self.rebuilt
        if is_new and self._needs.setdefault(id(layer), needs) != needs:
            self._fault(graph, call, specs, f"at another call it needs {_shapes_text(self._needs[id(layer)])}")
        return results

    def _fresh(self, layer: Any) -> Any:
        """Return a copy of a layer that is not built.

        Raises:
            SurgeryError: if the layer cannot be recreated, with the line to add.
        """
        copier = Copier({}, self._addresses.names)
        with keras_private.undisturbed(), keras_private.probing(), keras_private.live_code(), _objects(layer):
            fresh = copier.copy(layer)
            if fresh is not None:
                restore_initializers(fresh)
        if copier.faults:
            raise SurgeryError("\n".join(["the edit cannot be made:", *(f"  {fault}" for fault in copier.faults)]))
        return fresh

    def _compare(self, graph: Graph, call: Call, specs: Sequence[Any], fresh: Any) -> None:
        """Find the weights that would get another shape."""
        before, after = weight_shapes(call.layer), weight_shapes(fresh)
        changed = [name for name in before if after.get(name) != before[name]]
        if not changed and len(before) == len(after):
            return
        name = self._name(graph, call)
        if id(call.layer) in self._newcomers:
            has = ", ".join(f"{key} {before[key]}" for key in changed)
            self._fault(graph, call, specs, f"the new layer was built for another shape: {has}")
        elif self._rebuild is True or (not isinstance(self._rebuild, bool) and name in self._rebuild):
            self.rebuilt[id(call.layer)] = call.layer
        else:
            needs = ", ".join(f"{key} {after.get(key, 'gone')}" for key in changed)
            self._rebuildable.add(name)
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
        is_now = f"{kind} has {has}{was}" if has else f"{kind} takes{was[4:]}" if was else f"{kind} is new here"
        self.faults.append(Fault(name, is_now, listed(specs), why))


def weight_shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    """Return `{variable name within the layer: shape}`, without seed states."""
    states = {id(generator.state) for generator in seeds(layer).values()}
    return {name: tuple(held.shape) for name, held, _ in owned_variables(layer) if id(held) not in states}


def _shapes_text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"


def _objects(layer: Any) -> Any:
    return keras.saving.custom_object_scope(custom_objects([layer, *(entry.layer for entry in walk(layer))]))


def _tensor(leaf: Any) -> Any:
    if not isinstance(leaf, Value):
        return leaf
    return keras.KerasTensor(tuple(leaf.spec.shape), leaf.spec.dtype, sparse=leaf.spec.sparse)


def _fits(spec: Any, declared: Any) -> bool:
    """Return whether an input with this declared spec accepts a tensor."""
    if declared is None or len(spec.shape) != len(declared.shape):
        return declared is None
    return all(there is None or here == there for here, there in zip(spec.shape, declared.shape, strict=True))


def _merged(one: Any, other: Any) -> Any:
    if len(one.shape) != len(other.shape):
        raise ValueError(f"it is called on {listed([one])} and on {listed([other])}")
    shape = [here if here == there else None for here, there in zip(one.shape, other.shape, strict=True)]
    return keras.KerasTensor(tuple(shape), one.dtype, sparse=one.sparse)


def _without_batch(spec: Any, declared: Any) -> Any:
    """Return the new spec of an input: its shape changes, its dtype and batch size remain."""
    return keras.KerasTensor((declared.shape[0], *spec.shape[1:]), declared.dtype, sparse=declared.sparse)


def _all_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
