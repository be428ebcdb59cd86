"""Scripts as users write them, each run by a test."""
