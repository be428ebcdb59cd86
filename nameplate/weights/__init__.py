"""Named arrays without a framework: NumPy only.

- `named`: weights by name as a value, and an algebra over them: select, partition, map, difference.
- `plan`: the account of which array goes where. `automatic_names`: those that Keras made up, paired.
- `merge`: average, interpolation, task arithmetic. `adaptation`: arrays fitted to other channels or classes.
"""
