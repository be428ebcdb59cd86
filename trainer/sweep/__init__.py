"""Sweeps: many jobs of one command line, each in a process of its own, in a ledger that survives them."""
