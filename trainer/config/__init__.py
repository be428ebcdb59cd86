"""Command lines and files as a `RunConfig`, and a `RunConfig` as text. Only this room and `sweep.multirun` know Hydra.

Read `run_config` for what a configuration is and `composing` for how one is made. `schemas` has the dataclass of each
option, and `help` shows what they say. `overrides`, `validation`, `search_path` and `hydra_queries` find what cannot be
used, and what was meant. `serialization` writes a configuration as YAML or as overrides, and reads what a checkpoint
has stored.
"""

from trainer.config.composing import ONCE, application, command_line, register, remember, run_config, to_run_config
from trainer.config.help import help_text, is_help
from trainer.config.hydra_queries import CONF, explained, first_of_sweep, options, readable, search_of
from trainer.config.serialization import OPTION, defaults_of, from_yaml, overrides_of, stored_config, to_plain, to_yaml
from trainer.config.validation import refuse_places, refuse_trust_of_files

__all__ = [
    "CONF",
    "ONCE",
    "OPTION",
    "application",
    "command_line",
    "defaults_of",
    "explained",
    "first_of_sweep",
    "from_yaml",
    "help_text",
    "is_help",
    "options",
    "overrides_of",
    "readable",
    "refuse_places",
    "refuse_trust_of_files",
    "register",
    "remember",
    "run_config",
    "search_of",
    "stored_config",
    "to_plain",
    "to_run_config",
    "to_yaml",
]
