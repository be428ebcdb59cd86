"""`python -m scripts.launch`: one exit code for several workers."""

from __future__ import annotations

import json
import socket

import pytest

from nameplate.engine.cluster import Cluster, cluster
from scripts.launch import environment, exit_code_of, free_ports


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([143, 143], 143),  # asked to stop
        ([130, 130], 130),
        ([143, 137], 143),  # a worker was killed, and the chief lost it
        ([137, 143], 143),  # the chief was killed
        ([143, 1], 1),  # a worker failed, and the chief lost it
        ([1, 143, 143], 1),
        ([2, 2], 2),
        ([0, 139], 139),
    ],
)
def test_a_failure_counts_before_the_end_of_those_who_lost_it(codes: list[int], expected: int) -> None:
    assert exit_code_of(codes) == expected


def test_each_worker_is_told_who_it_is_and_ports_are_free() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    with socket.socket() as one:
        one.bind(("127.0.0.1", ports[0]))
    addresses = [f"127.0.0.1:{port}" for port in ports]
    told = environment(addresses, 2)
    assert cluster(told) == Cluster(tuple(addresses), 2)
    assert json.loads(told["TF_CONFIG"])["task"] == {"type": "worker", "index": 2}
