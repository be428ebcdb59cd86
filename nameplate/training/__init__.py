"""Training: the loop, its run directory, checkpoints, exact resume, and what it reports."""
