"""The parts of a run: its model with its `edits`, the `preceding_runs` that it needs, its loop, its `report`.

Read `assembly` first: a `Job` is what the parts share, and `assemble` builds the loop of one. `trainer.run` calls them.
"""
