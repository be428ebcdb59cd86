"""Benchmarks: each prints ratios and whether they are within their limits."""
