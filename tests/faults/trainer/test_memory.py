"""Too little memory: TensorFlow tries for twenty seconds before it gives up, so this is not among the short tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.errors import Exit, NameplateError, exit_code
from tests.nets import CUSTOM, write_data, write_nets
from tests.trainer.running import train

pytestmark = pytest.mark.usefixtures("strategy")


def test_too_little_memory_for_a_step_is_said_with_what_needs_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nets(tmp_path, monkeypatch)
    options = [*CUSTOM, *write_data(tmp_path / "data.npz", {}), "run=a", "fit.steps=5"]
    with pytest.raises(NameplateError, match="out of memory on a device") as error:
        train(tmp_path, *options, "model._target_=my_nets.build_large")
    assert "fit.global_batch" in str(error.value)
    assert exit_code(error.value) is Exit.FAILED
