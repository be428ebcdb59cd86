"""Doors: benchmarks, launchers, and what makes the files that ship."""
