from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nameplate.data.targets import OURS, call, resolver
from nameplate.errors import NameplateError
from trainer.models import ARCHITECTURES


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a package of the user's own that says so when it is imported."""
    (tmp_path / "users_package.py").write_text("def build(width, inputs): return width, inputs\nnumber = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_package", raising=False)
    return "users_package"


FORBIDDEN = [
    "os.system",
    "subprocess.run",
    "keras.saving.load_model",
    "keras.src.saving.load_model",
    "tensorflow.load_op_library",
    "numpy.load",
    "nameplate.errors.sys",
    "builtins.eval",
]


def test_the_projects_own_architectures_are_those_of_the_registry() -> None:
    assert frozenset(ARCHITECTURES.values()) == OURS


@pytest.mark.parametrize("path", FORBIDDEN)
def test_what_is_not_allowed_is_refused(path: str) -> None:
    with pytest.raises(NameplateError, match=r"trust=\["):
        resolver([])(path)


@pytest.mark.parametrize(
    "path",
    [
        "trainer.models.convnet.keras.saving.load_model",
        "trainer.models.convnet.math.sqrt",
        "trainer.models.convnet.Mapping",
    ],
)
def test_an_allowed_module_does_not_open_what_it_imports(path: str) -> None:
    with pytest.raises(NameplateError, match="not among what may be run"):
        resolver([])(path)


def test_a_refused_package_is_not_even_imported(package: str) -> None:
    with pytest.raises(NameplateError, match=r"trust=\[users_package\]"):
        resolver([])(f"{package}.build")
    assert package not in sys.modules


def test_a_trusted_package_is_used(package: str) -> None:
    build = resolver([package])(f"{package}.build")
    assert call(build, "build", offered={"inputs": 1, "classes": 2}, given={"width": 5}) == (5, 1)


def test_trust_is_for_whole_packages_and_not_for_what_begins_alike(package: str) -> None:
    with pytest.raises(NameplateError, match="not among what may be run"):
        resolver(["users"])(f"{package}.build")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("users_package.biuld", "Did you mean 'build'"),
        ("users_package.number", "not callable"),
        ("users_package", "not a dotted name"),
        ("users_package..build", "not a dotted name"),
    ],
)
def test_a_target_that_is_not_there_is_answered(package: str, path: str, says: str) -> None:
    with pytest.raises(NameplateError, match=says):
        resolver([package])(path)


def test_a_module_that_does_not_exist_is_answered() -> None:
    with pytest.raises(NameplateError, match="no module 'absent_package'"):
        resolver(["absent_package"])("absent_package.build")


def test_all_wrong_arguments_are_named_at_once() -> None:
    def build(*, width: int, depth: int) -> None: ...

    with pytest.raises(NameplateError) as error:
        call(build, "build", offered={"classes": 3}, given={"widht": 3})
    assert "takes no 'widht'. Did you mean 'width'?" in str(error.value)
    assert "needs 'depth'" in str(error.value)
