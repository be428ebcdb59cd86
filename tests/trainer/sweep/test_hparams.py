"""TensorBoard's own HParams plugin reads what is written: every job, failed ones included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.sweep.jobs import job
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import State
from trainer.sweep.hparams import write_hparams

JOBS = [
    job("a", best=0.5, seed=1, optimizer__learning_rate=0.1, model="mlp", steps=7),
    job("b", best=0.75, seed=1, optimizer__learning_rate=0.1, model="convnet", steps=7),
    job("c", State.failed, seed=1, optimizer__learning_rate=0.2, model="mlp", error="no memory"),
    job("d", State.planned, seed=2, optimizer__learning_rate=0.2, model="mlp", started=None, ended=None),
]


@pytest.fixture
def groups(tmp_path: Path) -> Any:
    """Return what the plugin makes of the files, by job."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    for _ in range(2):  # a second writing takes the place of the first
        write_hparams(Ledger(tmp_path), JOBS)
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    asked = RequestContext()
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=10, allowed_statuses=statuses)
    request.include_metrics = True
    found = list_session_groups.Handler(asked, context, "", request).run()
    return {each.name: each for each in found.session_groups}


def test_every_job_that_has_begun_is_there_with_its_settings_and_what_it_reached(groups: Any) -> None:
    assert sorted(groups) == ["a", "b", "c"]
    assert groups["a"].hparams["model"].string_value == "mlp"
    assert groups["c"].hparams["optimizer.learning_rate"].number_value == 0.2
    (reached,) = groups["b"].metric_values
    assert (reached.name.tag, reached.value, reached.training_step) == ("best/val_accuracy", 0.75, 7)


def test_a_failed_job_says_that_it_failed(groups: Any) -> None:
    from tensorboard.plugins.hparams import api_pb2

    states = {name: group.sessions[0].status for name, group in groups.items()}
    assert states == {"a": api_pb2.STATUS_SUCCESS, "b": api_pb2.STATUS_SUCCESS, "c": api_pb2.STATUS_FAILURE}


def test_writing_needs_no_tensorflow(tmp_path: Path) -> None:
    code = """
import sys
from tests.trainer.sweep.test_hparams import JOBS, Ledger, Path, write_hparams
write_hparams(Ledger(Path(sys.argv[1])), JOBS)
import trainer.sweep.control, trainer.sweep.__main__, trainer.sweep.job_process, trainer.sweep.processes
assert not {"tensorflow", "keras"} & set(sys.modules), "TensorFlow was imported"
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
