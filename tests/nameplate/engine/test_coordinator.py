"""Workers that know of each other, over real sockets: they meet, are refused, and hear when one is gone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nameplate.engine.cluster import Cluster, ClusterError
from nameplate.engine.coordinator import Coordinator, WorkerLostError
from nameplate.errors import Exit, exit_code
from scripts.launch import free_ports

SOON = 10.0  # seconds that news may take on a busy machine


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Three workers of this machine, whose processes do not end when one of them is gone."""
    monkeypatch.setattr(Coordinator, "_end", lambda coordinator, reason: None)
    return tuple(f"127.0.0.1:{port}" for port in free_ports(3))


def together(addresses: tuple[str, ...], *acts: Callable[[Coordinator], Any], jobs: str = "aaa") -> list[Any]:
    """Let each worker do its act in a thread of its own; return what each returned or raised."""

    def member(index: int) -> Any:
        try:
            with Coordinator(Cluster(addresses, index), job=jobs[index], patience=SOON) as coordinator:
                return acts[index](coordinator)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(member, range(len(acts))))


def test_they_meet_and_hear_the_chiefs_word(addresses: tuple[str, ...]) -> None:
    found = together(
        addresses,
        lambda coordinator: coordinator.broadcast({"home": "/runs/a"}),
        Coordinator.from_chief,
        Coordinator.from_chief,
    )
    assert found == [None, {"home": "/runs/a"}, {"home": "/runs/a"}]


def test_one_that_was_started_with_something_else_is_refused_and_all_hear_why(addresses: tuple[str, ...]) -> None:
    chief, other = together(addresses[:2], lambda coordinator: None, Coordinator.from_chief, jobs="ab")
    assert isinstance(chief, ClusterError)
    assert "worker 1 at" in str(chief)
    assert "another configuration or version" in str(chief)
    assert other == {"refused": str(chief)}


def test_who_does_not_come_in_time_is_named(addresses: tuple[str, ...]) -> None:
    with pytest.raises(ClusterError, match=rf"worker 1 at {addresses[1]}, 2 at .* did not connect within 0.2 s"):
        Coordinator(Cluster(addresses, 0), job="a", patience=0.2).__enter__()
    with pytest.raises(ClusterError, match=rf"the chief at {addresses[0]} was not there within 0.2 s"):
        Coordinator(Cluster(addresses, 1), job="a", patience=0.2).__enter__()


def test_a_port_that_is_taken_is_named(addresses: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("", int(addresses[0].rpartition(":")[2])))
        taken.listen()
        with pytest.raises(ClusterError, match="cannot listen at"):
            Coordinator(Cluster(addresses, 0), job="a", patience=1.0).__enter__()


def _leaves_in_an_error(coordinator: Coordinator) -> None:
    coordinator.watch()
    raise RuntimeError("out of memory")


def _hears(coordinator: Coordinator) -> str | None:
    coordinator.watch()
    return coordinator.lost(SOON)


def test_all_hear_of_one_that_is_gone(addresses: tuple[str, ...]) -> None:
    chief, _, third = together(addresses, _hears, _leaves_in_an_error, _hears)
    assert chief == third == f"worker 1 at {addresses[1]}"  # the third from the chief, who alone is connected with all


def test_all_hear_when_the_chief_is_gone(addresses: tuple[str, ...]) -> None:
    found = together(addresses, _leaves_in_an_error, _hears, _hears)
    assert found[1:] == [f"worker 0 at {addresses[0]}"] * 2


def test_one_that_is_done_says_goodbye(addresses: tuple[str, ...]) -> None:
    def is_done(coordinator: Coordinator) -> None:
        coordinator.watch()

    def listens(coordinator: Coordinator) -> str | None:
        coordinator.watch()
        return coordinator.lost(0.3)

    assert together(addresses[:2], listens, is_done) == [None, None]


def test_a_chief_that_ends_before_its_word_leaves_the_others_to_be_started_again(addresses: tuple[str, ...]) -> None:
    _, other = together(addresses[:2], _leaves_in_an_error, Coordinator.from_chief)
    assert isinstance(other, WorkerLostError)
    assert exit_code(other) is Exit.TERMINATED


def test_somebody_else_at_the_chiefs_port_is_sent_away(addresses: tuple[str, ...]) -> None:
    def disturbed(index: int) -> Any:
        if index == 2:
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2])), SOON) as other:
                        other.sendall(b"GET / HTTP/1.1\n")
                        return other.recv(1)
                except ConnectionRefusedError:  # the chief is not there yet
                    continue
        with Coordinator(Cluster(addresses[:2], index), job="a", patience=SOON) as coordinator:
            return index if index else coordinator.broadcast({"home": None})

    with ThreadPoolExecutor(3) as pool:
        stranger, chief = pool.submit(disturbed, 2), pool.submit(disturbed, 0)
        assert stranger.result() == b""
        assert pool.submit(disturbed, 1).result() == 1
        assert chief.result() is None
