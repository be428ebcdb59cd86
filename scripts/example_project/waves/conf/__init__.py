"""This project's options, which Hydra finds at pkg://waves.conf."""
