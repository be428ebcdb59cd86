"""What a sweep knows of its jobs: who each one is, how it stands, what it has reached; no framework."""
