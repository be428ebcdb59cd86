"""TensorBoard's HParams for a sweep: the settings, the end and the best value of every job.

Written as event files, without TensorFlow, beside the jobs' own curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nameplate.checkpoint import durable
from trainer.ledger.leaderboard import as_text, varying_keys
from trainer.ledger.ledger import Ledger
from trainer.ledger.record import JobRecord, State

_FILE = "events.out.tfevents.{time:010d}.nameplate.hparams"
_ENDED = (State.done, State.failed, State.interrupted)


def write_hparams(ledger: Ledger, records: Sequence[JobRecord]) -> None:
    """Write the experiment to the sweep's directory, and each job that has started to its own."""
    keys = varying_keys(records)
    monitor = next((record.monitor for record in records if record.monitor is not None), None)
    _write(ledger.directory, 0, [_experiment(records, keys, monitor)])
    for record in records:
        if record.started is None:
            continue
        values = [_start(record, keys)]
        if record.best is not None and record.monitor is not None:
            values.append(_scalar(_tag(record.monitor), record.best))
        if record.state in _ENDED:
            values.append(_end(record))
        _write(ledger.home(record.job) / "hparams", int(_seconds(record.started)), values, step=record.steps or 0)


def _experiment(records: Sequence[JobRecord], keys: Sequence[str], monitor: str | None) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    infos = []
    for key in keys:
        values = {_text(value): value for value in (_value(record.setting(key)) for record in records)}
        kinds = {bool: api_pb2.DATA_TYPE_BOOL, float: api_pb2.DATA_TYPE_FLOAT64, str: api_pb2.DATA_TYPE_STRING}
        types = {type(value) for value in values.values()}
        if len(types) > 1:
            types, values = {str}, {text: text for text in values}
        info = api_pb2.HParamInfo(name=key, type=kinds[types.pop()] if types else api_pb2.DATA_TYPE_STRING)
        info.domain_discrete.extend(sorted(values.values()))
        infos.append(info)
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=_tag(monitor)), display_name=monitor)] if monitor else []
    data = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    return _plugin(metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=data))


def _start(record: JobRecord, keys: Iterable[str]) -> Any:
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionStartInfo(
        start_time_secs=_seconds(record.started), group_name=record.job, monitor_url="", model_uri=record.job
    )
    for key in keys:
        value = _value(record.setting(key))
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, float):
            info.hparams[key].number_value = value
        else:
            info.hparams[key].string_value = value
    return _plugin(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=info))


def _end(record: JobRecord) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if record.state is State.done else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=_seconds(record.ended))
    return _plugin(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info))


def _plugin(tag: str, data: Any) -> Any:
    """Return a summary value with only what the HParams plugin reads."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    content = plugin_data_pb2.HParamsPluginData()
    content.CopyFrom(data)
    content.version = metadata.PLUGIN_DATA_VERSION
    about = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(
            plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
        ),
        data_class=summary_pb2.DATA_CLASS_TENSOR,
    )
    return summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto import summary_pb2

    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def _write(directory: Path, time: int, values: Sequence[Any], *, step: int = 0) -> None:
    """Write one whole event file, replacing the previous one."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / _FILE.format(time=time)
    hidden = durable.beside(path.with_name("events"), durable.NEW)  # no `tfevents` in it: TensorBoard may be watching
    with durable.replacement(path, temporary=hidden) as draft, draft.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(wall_time=float(time), file_version="brain.Event:2").SerializeToString())
        for value in values:
            summary = summary_pb2.Summary(value=[value])
            writer.write(event_pb2.Event(wall_time=float(time), step=step, summary=summary).SerializeToString())
        writer.flush()
    for old in directory.glob("events.out.tfevents.*.nameplate.hparams"):
        if old != path:
            old.unlink()


def _tag(monitor: str) -> str:
    return f"best/{monitor}"


def _value(value: Any) -> bool | float | str:
    """Return a setting as a value of the plugin: a number, a truth value or a text."""
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else as_text(value)


def _text(value: bool | float | str) -> str:
    return value if isinstance(value, str) else as_text(value)


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
