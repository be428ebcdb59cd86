"""What a sweep knows of its jobs: who each one is, how it stands, and what it has reached; no framework."""
