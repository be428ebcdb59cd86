"""Devices: a StrategyConfig becomes a `tf.distribute.Strategy`."""

from __future__ import annotations

import tensorflow as tf

from models.errors import NameplateError
from trainer.config.strategy import StrategyConfig, StrategyKind

CPU_REPLICAS = 2  # where there is no GPU and nothing is asked for


class StrategyError(NameplateError):
    """Devices that were asked for and are not there."""


def make_strategy(config: StrategyConfig) -> tf.distribute.Strategy:
    """Return the strategy of a run; call it once, before TensorFlow computes anything.

    Raises:
        StrategyError: a GPU that does not exist, with those that do, or devices that can no longer be laid out.
    """
    gpus = tf.config.list_physical_devices("GPU")
    kind = config.kind
    if kind is StrategyKind.auto:
        kind = StrategyKind.mirrored if gpus or config.gpus else StrategyKind.cpu_replicas
    if kind is StrategyKind.cpu_replicas:
        return _over_cpus(config.replicas or CPU_REPLICAS)
    chosen = _choose(gpus, config, kind)
    if chosen and config.memory_growth:
        _grow(chosen)
    if kind is StrategyKind.single:
        return tf.distribute.get_strategy()
    return _over_gpus(chosen)


def describe(strategy: tf.distribute.Strategy) -> str:
    """Return the strategy in words, e.g. `2 replicas on CPU:0, CPU:1`."""
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        return f"one device, {(tf.config.list_logical_devices('GPU') or tf.config.list_logical_devices('CPU'))[0].name}"
    count = strategy.num_replicas_in_sync
    names = [name.rpartition("device:")[2] for name in strategy.extended.worker_devices]
    return f"{count} replica{'s' if count > 1 else ''} on {', '.join(names)}"


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


def _grow(gpus: list[tf.config.PhysicalDevice]) -> None:
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:
        raise StrategyError(f"the GPUs can no longer be set up, TensorFlow has begun to use them: {error}") from None


def _over_gpus(gpus: list[tf.config.PhysicalDevice]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(len(gpus))])


def _over_cpus(replicas: int) -> tf.distribute.Strategy:
    """Return replicas on logical CPU devices. Reduction to one device: ring collectives fail there at times."""
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
            f"{count} CPU replicas need as many logical devices, and this process has begun with {have}. "
            "Logical devices are set once a process: start a new one for another number of replicas."
        ) from None
