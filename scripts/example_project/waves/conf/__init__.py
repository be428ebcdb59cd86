"""This project's options, as Hydra finds them: pkg://waves.conf."""
