"""Nameplate: Keras models trained on every GPU of a machine, under names that are checked, unique and kept.

This is the library's table of contents. Verbs are loaded on first use, so `import nameplate` imports no framework.
The rooms, lowest first: `naming`, `weights`, `checkpoint` and `formats` know strings, arrays and files; `graph`, `io`
and `surgery` know Keras models; `data`, `engine`, `training` and `interpret` train them and show what they see.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; what runs is below, and a test holds the two together
    import nameplate.training.checkpoint_callback as callbacks_module
    from nameplate.errors import NameplateError as NameplateError
    from nameplate.errors import NotFiniteError as NotFiniteError
    from nameplate.errors import StoppedError as StoppedError
    from nameplate.graph.model_weights import read as read
    from nameplate.graph.model_weights import set_trainable as set_trainable
    from nameplate.graph.model_weights import write as write
    from nameplate.graph.name_contract import Frozen as Frozen
    from nameplate.graph.name_contract import check as check
    from nameplate.graph.name_contract import enforce as enforce
    from nameplate.graph.name_contract import freeze as freeze
    from nameplate.graph.rename import rename as rename
    from nameplate.graph.tree import layer as layer
    from nameplate.graph.tree import layers as layers
    from nameplate.graph.tree import variables as variables
    from nameplate.interpret.dream import dream as dream
    from nameplate.interpret.look import look as look
    from nameplate.interpret.look import saliency as saliency
    from nameplate.io.export import export as export
    from nameplate.io.load_model import load as load
    from nameplate.io.load_weights import load_weights as load_weights
    from nameplate.io.reconstruct import reconstruct as reconstruct
    from nameplate.io.repair import mend as mend
    from nameplate.io.save import save as save
    from nameplate.io.transfer import TransferPlan as TransferPlan
    from nameplate.io.transfer import apply as apply
    from nameplate.io.transfer import plan as plan
    from nameplate.naming.policy import NamingError as NamingError
    from nameplate.naming.policy import Policy as Policy
    from nameplate.naming.policy import Violation as Violation
    from nameplate.surgery.changes import Insert as Insert
    from nameplate.surgery.changes import Remove as Remove
    from nameplate.surgery.changes import Replace as Replace
    from nameplate.surgery.conflicts import load_beside as load_beside
    from nameplate.surgery.conflicts import load_choosing as load_choosing
    from nameplate.surgery.draw import draw as draw
    from nameplate.surgery.edit import edit as edit
    from nameplate.surgery.edit import insert as insert
    from nameplate.surgery.edit import remove as remove
    from nameplate.surgery.edit import replace as replace
    from nameplate.surgery.ensemble import ensemble as ensemble
    from nameplate.surgery.ensemble import siamese as siamese
    from nameplate.surgery.extract import extract as extract
    from nameplate.surgery.flatten import flatten as flatten
    from nameplate.surgery.heads import attach as attach
    from nameplate.surgery.join import branch as branch
    from nameplate.surgery.join import join as join
    from nameplate.surgery.join import prefixed as prefixed
    from nameplate.training.assessment import Assessment as Assessment
    from nameplate.training.assessment import assess as assess
    from nameplate.training.config import Checkpoint as Checkpoint
    from nameplate.training.config import Log as Log
    from nameplate.training.custom_loop import Run as Run
    from nameplate.training.evaluate import evaluate as evaluate
    from nameplate.training.evaluate import predict as predict
    from nameplate.training.fit import fit as fit
    from nameplate.training.predictions import Predictions as Predictions
    from nameplate.training.predictions import tabulate as tabulate
    from nameplate.training.report import Report as Report
    from nameplate.weights.adaptation import Classes as Classes
    from trainer.config.composing import run_config as run_config
    from trainer.config.run_config import RunConfig as RunConfig
    from trainer.run import train as train
    from trainer.sweep.script_sweep import Sweep as Sweep
    from trainer.sweep.script_sweep import sweep as sweep

    callbacks = callbacks_module

_HOMES = {
    "nameplate.errors": "NameplateError NotFiniteError StoppedError",
    "nameplate.naming.policy": "NamingError Policy Violation",
    "nameplate.graph.tree": "layer layers variables",
    "nameplate.graph.name_contract": "Frozen check enforce freeze",
    "nameplate.graph.rename": "rename",
    "nameplate.graph.model_weights": "read set_trainable write",
    "nameplate.surgery.changes": "Insert Remove Replace",
    "nameplate.surgery.edit": "edit insert remove replace",
    "nameplate.surgery.extract": "extract",
    "nameplate.surgery.flatten": "flatten",
    "nameplate.surgery.join": "branch join prefixed",
    "nameplate.surgery.ensemble": "ensemble siamese",
    "nameplate.surgery.heads": "attach",
    "nameplate.surgery.conflicts": "load_beside load_choosing",
    "nameplate.surgery.draw": "draw",
    "nameplate.io.load_model": "load",
    "nameplate.io.load_weights": "load_weights",
    "nameplate.io.save": "save",
    "nameplate.io.export": "export",
    "nameplate.weights.adaptation": "Classes",
    "nameplate.io.transfer": "TransferPlan apply plan",
    "nameplate.io.reconstruct": "reconstruct",
    "nameplate.io.repair": "mend",
    "nameplate.training.config": "Checkpoint Log",
    "nameplate.training.custom_loop": "Run",
    "nameplate.training.fit": "fit",
    "nameplate.training.report": "Report",
    "nameplate.training.evaluate": "evaluate predict",
    "nameplate.training.assessment": "Assessment assess",
    "nameplate.training.predictions": "Predictions tabulate",
    "nameplate.interpret.dream": "dream",
    "nameplate.interpret.look": "look saliency",
    # Configured runs and sweeps: the one thing that the library asks of the application above it.
    "trainer.run": "train",
    "trainer.sweep.script_sweep": "Sweep sweep",
    "trainer.config.run_config": "RunConfig",
    "trainer.config.composing": "run_config",
}
_HOME_OF = {verb: module for module, verbs in _HOMES.items() for verb in verbs.split()}

__all__ = sorted([*_HOME_OF, "callbacks"])


def __getattr__(name: str) -> Any:
    if name == "callbacks":
        return import_module("nameplate.training.checkpoint_callback")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nameplate' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__


if "keras" in sys.modules:  # from here on each layer keeps whether Keras made up its name
    import_module("nameplate.graph.explicit_names")
