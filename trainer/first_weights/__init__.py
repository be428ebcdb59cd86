"""Where a run's first weights come from: files, other runs, runs that are made first."""
