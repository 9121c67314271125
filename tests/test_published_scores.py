"""The tables beside published figures: their means, what is measured, and blanks for what is not there."""

import json
import shutil
from pathlib import Path

import driver
import pytest

from benchmarks import published_scores


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_means_are_the_printed_ones(tmp_path: Path) -> None:
    text = published_scores.write_tables(tmp_path)
    for name, mean in (
        ("LangSplat, mIoU", "51.4"),
        ("LangSplatV2, mIoU", "59.9"),
        ("GAGS, mIoU", "54.1"),
        ("LangSplat, located", "84.3"),
        ("GAGS, located", "81.7"),
        ("3D-OVS, mIoU, classes competing", "86.8"),
        ("LangSplat, mIoU", "93.4"),
    ):
        found = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert any(line.endswith(f"| {mean} |") for line in found), (name, found)


def test_what_is_not_there_is_blank(tmp_path: Path) -> None:
    run = tmp_path / "lerf_ovs" / "teatime"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"miou": 0.7125, "psnr": 30.0}))
    text = published_scores.write_tables(tmp_path, tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == text
    lerf = text.split("###")[1]
    assert cells(lerf, "**ours**, mIoU") == ["", "", "71.2", "", ""]
    assert cells(lerf, "**ours**, located") == [""] * 5


def test_scenes_that_are_there_are_trained(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.install(monkeypatch.setattr)
    shutil.copytree(tiny_scene, tmp_path / "data" / "lerf_ovs" / "ramen")
    options = ["--data", str(tmp_path / "data"), "--preset", "fast", "--encoder", "colour"]
    assert published_scores.main([str(tmp_path / "runs"), *options]) == 0
    ours = cells(capsys.readouterr().out.split("###")[1], "**ours**, mIoU")
    metrics = json.loads((tmp_path / "runs" / "lerf_ovs" / "ramen" / "metrics.json").read_text())
    assert ours == [f"{100 * metrics['miou']:.1f}", "", "", "", ""]


def test_what_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert published_scores.main([str(tmp_path), "--data", str(tmp_path / "data")]) == 2
    assert "has none of the sets" in capsys.readouterr().err
    run = tmp_path / "3d_ovs" / "bed"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{")
    assert published_scores.main([str(tmp_path)]) == 2
    assert "metrics.json cannot be read" in capsys.readouterr().err
