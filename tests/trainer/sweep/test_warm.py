"""A warm process has done ahead what every job would do again."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from tests.trainer.sweep.sweeping import SMALL


def test_a_job_converts_nothing_that_a_warm_process_could_have_converted(tmp_path: Path) -> None:
    """One that is listed here belongs into trainer/sweep/warm.py."""
    process = multiprocessing.get_context("forkserver").Process(target=_job, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "late").read_text().splitlines() == []


def _job(runs: Path) -> None:
    from tensorflow.python.autograph.impl import api

    import trainer.sweep.warm  # noqa: F401
    from trainer.compose import run_config
    from trainer.flow import run

    transpiler: Any = api._TRANSPILER
    convert, late = transpiler.transform_ast, []

    def told(node: Any, context: Any) -> Any:
        late.append(context.info.name)
        return convert(node, context)

    transpiler.transform_ast = told
    run(run_config([f"runs={runs}", *SMALL, "strategy=cpu_replicas", "optimizer=adam"]))
    (runs / "late").write_text("\n".join(late))
