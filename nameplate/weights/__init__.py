"""Named arrays as a small algebra, merging, and plans: NumPy only."""
