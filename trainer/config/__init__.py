"""Hydra's configuration becomes a RunConfig here, and text in a checkpoint; only sweeps know Hydra beside this room."""

from trainer.config.composing import ONCE, application, command_line, register, remember, run_config, to_run_config
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
