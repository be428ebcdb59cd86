from __future__ import annotations

from pathlib import Path

import pytest

from tests.nets import write_nets


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs, with the models that they use."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        write_nets(folder, patch)
    return folder
