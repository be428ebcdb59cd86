"""What a `tf.data.Dataset` leaves to chance in the order or the content of its examples (tensorflow 2.21)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from nameplate.engine import private

_SHUFFLES = ("ShuffleDataset", "ShuffleAndRepeatDataset", "RandomDataset")
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


def unseeded(dataset: tf.data.Dataset) -> list[str]:
    """Return the operations of a pipeline that draw random numbers without a seed, sorted.

    An operation is seeded by its own argument, or by `tf.random.set_seed` before it is created. The graph of a
    function has its seeds as attributes or, for a dataset inside, as inputs.
    """
    found = {_operation(part) for part in _parts(dataset) if _is_unseeded(part)}
    found |= {node.op for nodes in _functions(dataset) for node in nodes.values() if _draws(node, nodes)}
    return sorted(found)


def unordered(dataset: tf.data.Dataset) -> bool:
    """Say whether elements may overtake each other: `deterministic=False` of the options or of a parallel step.

    An interleaving step has it only in its serialized graph.
    """
    return dataset.options().deterministic is False or any(
        not private.keeps_order(part) or _interleaves_in_any_order(part) for part in _parts(dataset)
    )


def runs_python(dataset: tf.data.Dataset) -> bool:
    """Say whether Python produces examples of the dataset: whether it draws random numbers cannot be seen from here."""
    return any(node.op in _PYTHON for nodes in _functions(dataset) for node in nodes.values())


def _parts(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """Yield a dataset and, recursively, those it is made from."""
    yield dataset
    for source in private.inputs_of(dataset):
        yield from _parts(source)


def _functions(dataset: tf.data.Dataset) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes, by name, of each function that is mapped over examples, and of each function inside it."""
    for part in _parts(dataset):
        for value in vars(part).values():
            graph = getattr(getattr(value, "function", None), "graph", None)  # `StructuredFunctionWrapper.function`
            if graph is not None:
                whole = graph.as_graph_def()
                yield {node.name: node for node in whole.node}
                yield from ({node.name: node for node in each.node_def} for each in whole.library.function)


def _interleaves_in_any_order(dataset: tf.data.Dataset) -> bool:
    if "ParallelInterleave" not in type(dataset).__name__:
        return False
    graph = tf.compat.v1.GraphDef.FromString(private.serialized_graph(dataset))
    steps = [node for node in graph.node if node.op.startswith("ParallelInterleave")]
    return any(node.attr["deterministic"].s == b"false" for node in steps)


def _operation(dataset: tf.data.Dataset) -> str:
    return type(dataset).__name__.strip("_")


def _is_unseeded(dataset: tf.data.Dataset) -> bool:
    return all(seed is not None and not int(seed) for seed in private.seeds_of(dataset))


def _draws(node: Any, nodes: Mapping[str, Any]) -> bool:
    """Say whether a node of a function draws without a seed."""
    if node.op.startswith(_SHUFFLES):
        seeds = [nodes.get(name.partition(":")[0]) for name in node.input[2:4]]
        return all(seed is not None and seed.op == "Const" and not _number(seed) for seed in seeds)
    if not {"seed", "seed2"} <= set(node.attr) or node.op.startswith("Stateless"):
        return False
    return not node.attr["seed"].i and not node.attr["seed2"].i


def _number(constant: Any) -> int:
    return int(tf.make_ndarray(constant.attr["value"].tensor))
