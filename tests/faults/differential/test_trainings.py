"""Random trainings give the numbers of `model.fit` on one device, on 1, 2 and 4 replicas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import assume, given

from tests.faults.differential.cases import Case, cases
from tests.faults.differential.drawing import COUNT, draw
from tests.faults.differential.processes import WAYS, Answer, Trainers

# In float64 what is left is the order of summation, which a division by a small gradient makes larger: see
# `tests.nameplate.engine.replication.comparing`. Keras keeps the means of losses and metrics in float32.
WEIGHTS, LOGS = (1e-6, 1e-8), (5e-6, 2e-6)  # relative, absolute
FEW = 20  # findings after which there is enough to look at


@pytest.fixture(scope="module")
def trainers() -> Iterator[Trainers]:
    """Return the processes that train."""
    running = Trainers()
    yield running
    running.stop()


@pytest.mark.timeout(6 * 3600)
def test_random_trainings_give_the_numbers_of_one_device(trainers: Trainers) -> None:
    findings: list[str] = []
    compared = dict.fromkeys(WAYS, 0)
    tried: set[str] = set()

    @draw
    @given(cases())
    def train(case: Case) -> None:
        if len(findings) >= FEW:
            return
        kind = repr(replace(case, seed=0, size=0))
        assume(kind not in tried)  # else most examples are the ones before with another seed
        tried.add(kind)
        answers = trainers.answers(case)
        if found := _findings(case, answers):
            findings.append("\n  ".join([json.dumps(asdict(case)), *found]))
            print(findings[-1], flush=True)
        for way, answer in answers.items():
            compared[way] += bool(answer.numbers)
        if len(tried) % 10 == 0:
            print(f"{len(tried)} cases, {len(findings)} findings", flush=True)

    train()
    print(f"compared: {compared}")
    assert not findings, "\n".join(findings)
    assert min(compared.values()) > 0.8 * COUNT, compared  # a harness in which all is refused finds nothing


def _findings(case: Case, answers: dict[str, Answer]) -> list[str]:
    """Return what is not as on one device, or refused without a reason to."""
    expected = answers["keras"]
    if not expected.numbers:
        return [f"keras: {expected.failed or expected.refused}"]
    found = []
    for way, answer in answers.items():
        if answer.failed:
            found.append((way, answer.failed))
        elif answer.refused:
            if way == "1 replica" or not case.may_refuse:
                found.append((way, f"refused: {answer.refused}"))
        elif beyond := _beyond(case, answer.numbers, expected.numbers):
            found.append((way, str(beyond)))
    return _grouped(found)


def _grouped(found: list[tuple[str, str]]) -> list[str]:
    """Return a line a finding, with all ways of training that it is of."""
    ways: dict[str, list[str]] = {}
    for way, what in found:
        ways.setdefault(what, []).append(way)
    return [f"{', '.join(names)}: {what}" for what, names in ways.items()]


def _beyond(case: Case, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, str]:
    """Return what differs by more than rounding, with what was found and expected."""
    beyond = {}
    for name in sorted(found.keys() | expected.keys()):
        if _differs_on_purpose(case, name):
            continue
        one, other = found.get(name), expected.get(name)
        if one is None or other is None or one.shape != other.shape:
            beyond[name] = f"{None if one is None else one.shape} for {None if other is None else other.shape}"
        elif not _close(name, one, other):
            beyond[name] = f"{_short(one, other)} for {_short(other, one)}"
    return beyond


def _differs_on_purpose(case: Case, name: str) -> bool:
    """Say what README's table has different: losses of several outputs are means over examples, not over batches."""
    return case.structure == "two_outputs" and name.endswith(
        ("/one_loss", "/val_one_loss", "/other_loss", "/val_other_loss")
    )


def _close(name: str, one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind == "U":
        return bool(np.array_equal(one, other))
    relative, absolute = WEIGHTS if name.startswith(("weights", "predictions")) else LOGS
    return bool(np.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True))


def _short(one: np.ndarray, other: np.ndarray) -> str:
    """Return the first few values that differ."""
    apart = np.ravel(one != other)
    return np.array2string(np.ravel(one)[apart][:4], precision=7)
