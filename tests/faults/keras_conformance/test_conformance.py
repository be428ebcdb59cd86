"""Every test of Keras that calls `fit`, `evaluate` or `predict` passes with ours in their place, but for those listed.

`expected_failures.toml` has a section a way, and in it a reason for each test that does not pass. A test that is not
listed must pass; one that is listed must not, or leaves the list.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.faults.keras_conformance.running import PACKAGES, WAYS, Outcome, run

LISTED = tomllib.loads(Path(__file__).with_name("expected_failures.toml").read_text())


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    """A package of Keras."""
    return str(request.param)


@pytest.fixture(scope="module")
def passed(package: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tests of a package that call one of the three, and that Keras itself passes here."""
    found = run(package, "stock", tmp_path_factory.mktemp("stock") / "out.json")
    return [name for name, each in found.items() if each.reached and each.outcome == "passed"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS[1:])
def test_what_keras_passes_passes_with_ours(way: str, package: str, passed: list[str], tmp_path: Path) -> None:
    assert passed
    found = run(package, way, tmp_path / "out.json", passed)
    missing = Outcome("missing", reached=False, reason="the process ended before")
    failed = {name: each for name in passed if (each := found.get(name, missing)).outcome != "passed"}
    listed = {name for name in LISTED[way] if name.partition("/")[0] == package and name in passed}
    new = [f"{name}: {each.outcome}, {each.reason}" for name, each in failed.items() if name not in listed]
    print(f"{package}, {way}: {len(passed) - len(failed)} of {len(passed)}")
    assert not new, "these fail and are not listed"
    assert not listed - set(failed), "these pass and are listed"
