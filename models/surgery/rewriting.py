"""What each edit does to a graph as data; nothing is built here.

All names mean the model as it was. What stands behind a layer gives the value that others take, and the layer gets a
value of its own, so that an edit costs what it touches.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.surgery.addresses import Addresses
from models.surgery.changes import Rewritten
from models.surgery.edits import Edit, Insert, Remove, Replace, SurgeryError
from models.surgery.inserting import insert_in
from models.surgery.removing import remove_in
from models.surgery.replacing import replace_in


def rewrite(addresses: Addresses, edits: Sequence[Edit]) -> Rewritten:
    """Do the edits to the graphs of `addresses`.

    Raises:
        SurgeryError: with every edit that cannot be done.
    """
    done = Rewritten()
    touched: set[int] = set()
    problems: list[str] = []
    order = {Insert: 0, Replace: 1, Remove: 2}
    for edit in sorted(edits, key=lambda each: order[type(each)]):
        try:
            if isinstance(edit, Insert):
                insert_in(addresses, edit, done)
            elif isinstance(edit, Replace):
                replace_in(addresses, edit, done, touched)
            else:
                remove_in(addresses, edit, done, touched)
        except SurgeryError as error:
            problems.append(str(error))
    if problems:
        raise SurgeryError("\n".join(["nothing was edited:", *(f"  {problem}" for problem in problems)]))
    for graph, changes in done.substitutes.values():
        graph.substitute(changes)
    return done
