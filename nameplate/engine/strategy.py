"""Devices: the `tf.distribute.Strategy` of a StrategyConfig."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import keras
import tensorflow as tf

from nameplate.engine import private
from nameplate.engine.cluster import Cluster, cluster
from nameplate.engine.config import StrategyConfig, StrategyKind
from nameplate.errors import NameplateError

CPU_REPLICAS = 2  # if there is no GPU and nothing is asked for


class StrategyError(NameplateError):
    """The devices that were asked for do not exist, or cannot be set up any more."""


def make_strategy(config: StrategyConfig) -> tf.distribute.Strategy:
    """Return the strategy of a run; call it once, before TensorFlow computes anything.

    Raises:
        StrategyError: a GPU that does not exist, with those that do, or devices that can no longer be laid out; or the
            call is inside the scope of another strategy.
    """
    if tf.distribute.has_strategy():
        raise StrategyError(
            "a configured run is started inside the scope of another strategy; call it outside: it makes its own, "
            "by strategy=... and strategy.replicas=..."
        )
    gpus = tf.config.list_physical_devices("GPU")
    kind = config.kind
    if kind is StrategyKind.multi_worker:
        return _over_workers(config, gpus, cluster())
    if kind is StrategyKind.auto:
        kind = StrategyKind.mirrored if gpus or config.gpus else StrategyKind.cpu_replicas
    if kind is StrategyKind.cpu_replicas:
        return _over_cpus(config.replicas or CPU_REPLICAS)
    chosen = _choose(gpus, config, kind)
    if chosen:
        _grow(chosen, growth=config.memory_growth)
    if kind is StrategyKind.single:
        return tf.distribute.get_strategy()
    return _over_gpus(chosen)


def gpu_count() -> int:
    """Return how many GPUs this machine has."""
    return len(tf.config.list_physical_devices("GPU"))


def describe(strategy: tf.distribute.Strategy) -> str:
    """Return a strategy as text, e.g. `2 replicas on CPU:0, CPU:1`."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        held, count = len(strategy.extended.worker_devices), strategy.num_replicas_in_sync
        kind = strategy.extended.worker_devices[0].rpartition("device:")[2].partition(":")[0]
        return f"{count} replica{'s' if count > 1 else ''} on {count // held} workers, {held} {kind} each"
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        return f"one device, {(tf.config.list_logical_devices('GPU') or tf.config.list_logical_devices('CPU'))[0].name}"
    count = strategy.num_replicas_in_sync
    names = [name.rpartition("device:")[2] for name in strategy.extended.worker_devices]
    return f"{count} replica{'s' if count > 1 else ''} on {', '.join(names)}"


def strategy_of(model: keras.Model) -> tf.distribute.Strategy:
    """Return the strategy that a model was created in; refuse another one that is entered."""
    own = model.distribute_strategy
    inside = own.extended.variable_created_in_scope
    entered = tf.distribute.has_strategy() and tf.distribute.get_strategy() is not own
    optimizers = [] if getattr(model, "optimizer", None) is None else model.optimizer.variables
    if entered or not all(inside(variable.value) for variable in [*model.variables, *optimizers]):
        raise NameplateError(
            f"{model.name!r} was made outside of the strategy's scope that it is used in; "
            "build and compile it inside: with strategy.scope(): ..."
        )
    return own


def _over_workers(
    config: StrategyConfig, gpus: list[tf.config.PhysicalDevice], found: Cluster | None
) -> tf.distribute.Strategy:
    if found is None:
        raise StrategyError(
            "strategy=multi_worker, and neither TF_CONFIG nor Slurm says who the workers are. "
            "On one machine `python -m scripts.launch --workers 2 -- ...` starts them; scripts/ has a Slurm script too."
        )
    workers = len(found.addresses)
    if config.replicas and config.replicas % workers:
        raise StrategyError(
            f"strategy.replicas: {config.replicas} replicas do not divide among {workers} workers; "
            f"the nearest: {max(config.replicas // workers, 1) * workers}"
        )
    each = config.replicas // workers if config.replicas else None
    if gpus:
        gpus = _choose(gpus, replace(config, replicas=each), StrategyKind.mirrored)
        _grow(gpus, growth=config.memory_growth)
    else:
        _split_cpu(each or 1)
    strategy = _multi_worker(found, devices=len(gpus) or each or 1, gpu=bool(gpus))
    # TensorFlow has replaced the handler of SIGTERM with one that ignores it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


def _choose(
    gpus: list[tf.config.PhysicalDevice], config: StrategyConfig, kind: StrategyKind
) -> list[tf.config.PhysicalDevice]:
    wanted = config.gpus
    if wanted is None and config.replicas and kind is not StrategyKind.single:
        wanted = list(range(config.replicas))
    missing = [index for index in wanted or () if not 0 <= index < len(gpus)]
    if missing or (kind is StrategyKind.mirrored and not gpus):
        there = f"GPUs {', '.join(map(str, range(len(gpus))))}" if gpus else "no GPU"
        asked = f"GPU {', '.join(map(str, missing))}" if missing else "a GPU"
        raise StrategyError(
            f"the strategy needs {asked}, and this machine has {there}. "
            "Set strategy.gpus or strategy.replicas to what is there, or train on the CPU with strategy=cpu_replicas."
        )
    return gpus if wanted is None else [gpus[index] for index in wanted]


def _grow(gpus: list[tf.config.PhysicalDevice], *, growth: bool) -> None:
    """Make only these GPUs visible to TensorFlow, which then counts them from 0."""
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus if growth else ():
            tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:
        raise StrategyError(f"the GPUs can no longer be set up, TensorFlow uses them already: {error}") from None


def _over_gpus(gpus: list[tf.config.PhysicalDevice]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(len(gpus))])


def _over_cpus(replicas: int) -> tf.distribute.Strategy:
    """Return replicas on logical CPU devices. They reduce to one device, since ring collectives fail there at times."""
    _split_cpu(replicas)
    devices = [f"CPU:{index}" for index in range(replicas)]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    have = len(tf.config.get_logical_device_configuration(cpu) or ()) or 1
    if have >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise StrategyError(
            f"{count} CPU replicas need as many logical devices, and this process has {have}. "
            "Logical devices are set once a process; start a new one for another number of replicas."
        ) from None


def _multi_worker(found: Cluster, *, devices: int, gpu: bool) -> tf.distribute.Strategy:
    """Return TensorFlow's strategy over several processes, with this number of GPUs or logical CPU devices in each."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(found.addresses)}),
        task_type="worker",
        task_id=found.index,
        num_accelerators={"GPU": devices if gpu else 0},
        rpc_layer="grpc",
    )
    kind = "GPU" if gpu else "CPU"
    with private.patched([private.local_devices([f"device:{kind}:{number}" for number in range(devices)], kind)]):
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
