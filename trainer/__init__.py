"""See README.md for the map of the house."""
