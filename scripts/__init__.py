"""Benchmarks, launchers for clusters, an example project, and the tools that generate files of the project."""
