"""Edits of a model's graph; each returns a new model in which every untouched layer keeps its name and weights.

`edit` has the general verb and `replace`, `insert`, `remove`. It runs through these modules, in this order: `addresses`
finds the layers that the names mean, `changes` has the edits as values and the log of what they change, `rewrite` and
`replacement` apply them to the graphs as data, `shapes` propagates the new shapes and finds every layer that cannot
take them, `rebuild` creates the model, `verification` proves and reports. `extract`, `flatten` and `heads` (`attach`)
use the same steps. `join` and `ensemble` combine whole models, `conflicts` loads a file beside models whose names it
shares, `draw` draws a graph.
"""
