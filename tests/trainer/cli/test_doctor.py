from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli import doctor

pytestmark = pytest.mark.usefixtures("strategy")


def test_a_sound_installation_passes_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert all(check.name in said for check in doctor.CHECKS)
    assert list(tmp_path.iterdir()) == []


def test_what_is_broken_is_told_and_the_other_checks_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> str:
        raise RuntimeError("it broke")

    def unhealthy(_: Path) -> str:
        raise doctor.Unhealthy("do this")

    checks = (doctor.Check("a", broken), doctor.Check("b", unhealthy), doctor.Check("c", lambda _: "fine"))
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.main(["--runs", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "RuntimeError: it broke" in said
    assert "do this" in said
    assert "fine" in said


def test_without_streams_of_their_own_replicas_are_found_to_draw_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from nameplate.engine import one_device

    monkeypatch.setattr(one_device, "as_one_device", nullcontext)
    with pytest.raises(doctor.Unhealthy, match="drew the same numbers"):
        doctor._random_apart(tmp_path)


def test_a_file_where_the_runs_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    holds, found = doctor._tried(doctor.Check("disk", doctor._disk), tmp_path / "runs" / "deeper")
    assert holds == "no"
    assert "runs" in found
