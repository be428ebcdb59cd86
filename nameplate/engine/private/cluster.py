"""TensorFlow's strategy over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as collective_strategy


def multi_worker(addresses: Sequence[str], index: int, *, devices: int, gpu: bool) -> tf.distribute.Strategy:
    """Return TensorFlow's strategy over several processes, with this number of GPUs or logical CPU devices in each.

    TensorFlow gives a worker without GPUs one replica, however many logical devices its CPU is divided into.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": devices if gpu else 0},
        rpc_layer="grpc",
    )
    extended = collective_strategy.CollectiveAllReduceExtended
    original = extended._initialize_local_devices
    kind = "GPU" if gpu else "CPU"

    def of_this_worker(strategy: Any, resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker_device}/device:{kind}:{number}" for number in range(devices)), kind

    extended._initialize_local_devices = of_this_worker
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    finally:
        extended._initialize_local_devices = original
