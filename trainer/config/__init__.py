"""The frozen configuration of a run, a dataclass a section, each with its own problems in words."""
