"""An example of a project that depends on Nameplate, with its own model, data and experiment.

Keep this module light: Hydra imports it for `pkg://waves.conf`, even if nothing is trained.
"""

import sys


def main() -> int:
    """Run `nameplate` with this project's options found and its package trusted: `waves experiment=waves`."""
    from trainer.__main__ import main as nameplate

    sys.argv[1:1] = ["hydra.searchpath=[pkg://waves.conf]", "trust=[waves]"]
    return nameplate()
