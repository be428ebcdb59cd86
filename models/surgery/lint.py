"""A graph that an edit made is looked at before anything is built: every value is made once, before it is taken."""

from __future__ import annotations

from models.surgery.edits import SurgeryError
from models.surgery.graph import Graph, values_in


def lint(graph: Graph) -> None:
    """Look at one graph.

    Raises:
        SurgeryError: with every call that takes what nothing before it gives, and every value that two calls give.
    """
    problems = []
    known: dict[int, str] = {}
    for head in graph.heads:
        known[id(head.value)] = "an input"
    for call in graph.calls:
        name = str(call.layer.name)
        problems += [f"{name!r} takes what nothing before it gives" for each in call.inputs() if id(each) not in known]
        problems += [
            f"{name!r} gives what {known[id(each)]} gives already" for each in call.outputs if id(each) in known
        ]
        known.update((id(each), repr(name)) for each in call.outputs)
    problems += ["an output is given by nothing" for each in values_in(graph.outputs) if id(each) not in known]
    if problems:
        lines = "\n".join(f"  {each}" for each in dict.fromkeys(problems))
        raise SurgeryError(f"the edited graph of {graph.name!r} does not hold together; nothing was built:\n{lines}")
