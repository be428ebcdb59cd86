"""Models and weights in and out of files, by name: load, save, export, transfer, repair."""
