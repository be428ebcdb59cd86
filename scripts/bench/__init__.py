"""Benchmarks: each prints its ratios and says whether they hold."""
