"""The tables beside published figures: their means, what is measured, what made it, and what went wrong."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import driver
import pytest

from encoders.files import write_json
from splat.protocols import PROTOCOLS
from splat.run import STAGES, RunRecord, StageRecord
from splat.scene import load_scene
from splat.train_config import TrainConfig

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))
published_scores = importlib.import_module("published_scores")
figures = importlib.import_module("published_figures")

Captured = pytest.CaptureFixture[str]
FAST = ("--preset", "fast", "--encoder", "colour")


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def section(text: str, title: str) -> str:
    (found,) = [part for part in text.split("### ") if part.startswith(title)]
    return found


def write_run(folder: Path, metrics: Any, scene: Path = Path("photos"), **options: Any) -> None:
    """A run that was trained with these options, as far as its JSON files tell."""
    config = TrainConfig(scene, **{"scale": 1.0, "hold_out": 0, "dictionary": "kmeans"} | options)
    inputs: dict[str, dict[str, Any]] = {
        "rgb": {"preset": config.preset},
        "features": {"encoder": config.encoder, "regions": config.regions},
        "language": {"solver": config.solver},
    }
    stages = {name: StageRecord(status="done", inputs=inputs[name], seconds=1.0) for name in STAGES}
    record = RunRecord(dictsplat_version="0", config=config.to_json(), dataset="", stages=stages)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", record.model_dump(mode="json"))
    (folder / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics))


@pytest.fixture
def data(tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets with one scene, whose own lists hold two of ten views out."""
    driver.install(monkeypatch.setattr)
    shutil.copytree(tiny_scene, tmp_path / "data" / "lerf_ovs" / "ramen")
    return tmp_path / "data"


# --- figures of papers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "name", "printed"),
    [
        ("LERF_OVS", "LangSplat, mIoU", "51.4"),
        ("LERF_OVS", "GAGS, mIoU", "54.1"),
        ("LERF_OVS", "LangSplatV2, mIoU", "59.9"),
        ("LERF_OVS", "LangSplat, located", "84.3"),
        ("LERF_OVS", "GAGS, located", "81.7"),
        ("LERF_OVS", "LangSplatV2, located", "84.1"),
        ("3D-OVS", "LangSplat, mIoU", "93.4"),
        ("3D-OVS", "LangSplatV2, mIoU", "94.6"),
        ("3D-OVS", "3D-OVS, mIoU, classes competing", "86.8"),
        ("Mip-NeRF 360", "LangSplatV2, mIoU", "69.4"),
    ],
)
def test_every_published_row_ends_in_the_mean_that_its_paper_prints(
    tmp_path: Path, title: str, name: str, printed: str
) -> None:
    *columns, mean = cells(section(published_scores.tables(tmp_path)[0], title), name)
    assert mean == printed
    if any(columns):  # the figures were copied as they stand in a table that adds up
        assert sum(map(float, columns)) / len(columns) == pytest.approx(float(printed), abs=0.1)


def test_the_test_above_leaves_no_row_out(tmp_path: Path) -> None:
    lines = [line for line in published_scores.tables(tmp_path)[0].splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.startswith(("| %", "| **ours**"))]
    assert len(rows) == 10 == sum(len(one.figures) for one in figures.PUBLISHED)


def test_the_documented_tables_are_those_of_the_command(tmp_path: Path) -> None:
    page = (SCRIPTS.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert page.endswith(published_scores.tables(tmp_path)[0].rstrip("\n") + "\n")


def test_a_mean_that_is_not_that_of_the_columns_is_told() -> None:
    def published(mean: float) -> Any:
        row = figures.Figures("Some", "miou", {"a": 82.0, "b": 95.5}, mean, "Table 7 of a paper")
        return figures.Published("set", "Set", "lerf", ("a", "b"), {"miou": "mIoU"}, (row,))

    text = published_scores.table(published(84.1), published_scores.Ours())
    assert cells(text, "Some, mIoU") == ["82.0", "95.5", "84.1"]
    assert "- Some: Table 7 of a paper." in text
    assert "- Some, mIoU: 84.1 is printed, the mean of the columns is 88.8." in text
    assert "is printed" not in published_scores.table(published(88.7), published_scores.Ours())


# --- runs --------------------------------------------------------------------------------------


def test_what_is_not_there_is_blank(tmp_path: Path, capsys: Captured) -> None:
    write_run(tmp_path / "lerf_ovs" / "teatime", {"miou": 0.7125, "psnr": 30.0})
    assert published_scores.main([str(tmp_path), "--markdown", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    lerf = section(text, "LERF_OVS")
    assert cells(lerf, "**ours**, mIoU") == ["", "", "71.2", "", ""]
    assert cells(lerf, "**ours**, located") == [""] * 5
    assert "Ours: no scored runs." in section(text, "3D-OVS")


def test_ours_have_a_mean_once_all_scenes_are_there(tmp_path: Path) -> None:
    for scene, score in (("ramen", 0.5), ("figurines", 0.75), ("teatime", 0.0), ("waldo_kitchen", 1)):
        write_run(tmp_path / "lerf_ovs" / scene, {"miou": score})
    lerf = section(published_scores.tables(tmp_path)[0], "LERF_OVS")
    assert cells(lerf, "**ours**, mIoU") == ["50.0", "75.0", "0.0", "100.0", "56.2"]


def test_what_made_ours_is_told_under_the_table(tmp_path: Path) -> None:
    same = {"encoder": "openclip:ViT-B-16", "regions": "sam:vit_h:x.pth", "solver": "sgd", "preset": "paper"}
    write_run(tmp_path / "mipnerf360" / "room", {"miou": 0.6, "protocol": "mipnerf360"}, scale=1600 / 3114, **same)
    write_run(tmp_path / "mipnerf360" / "counter", {"miou": 0.6}, scale=1600 / 3115, **same)
    write_run(tmp_path / "mipnerf360" / "garden", {"miou": 0.6}, scale=1600 / 5187, **same | {"hold_out": None})
    text, failures = published_scores.tables(tmp_path)
    assert not failures
    assert (
        "Ours: encoder openclip:ViT-B-16, regions sam:vit_h:x.pth, solver sgd, preset paper, "
        "scale 0.5138 (room) and 0.5136 (counter) and 0.3085 (garden), "
        "hold-out 0 (room, counter) and not chosen (garden), "
        "protocol mipnerf360 (room) and unknown (counter, garden).\n"
    ) in section(text, "Mip-NeRF 360")


def test_what_others_made_is_not_passed_for_ours(tmp_path: Path) -> None:
    folder = tmp_path / "lerf_ovs" / "ramen"
    write_run(folder, {"miou": 0.6}, scale=None, hold_out=None)
    record = json.loads((folder / "run.json").read_text())
    record["stages"]["rgb"]["inputs"] = {"digest": "0"}
    record["stages"]["language"]["inputs"] = {"gaussians": "0", "imported": "/chkpnt10000.pth"}
    del record["stages"]["features"]
    write_json(folder / "run.json", record)
    assert (
        "regions unknown, solver of LangSplatV2 (imported), preset none (Gaussians from elsewhere), scale unknown, "
        "hold-out not chosen, protocol unknown."
    ) in published_scores.tables(tmp_path)[0]


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("5", "holds no table of scores"),
        ("[1]", "holds no table of scores"),
        ('"x"', "holds no table of scores"),
        ('{"miou": null}', "says 'None' for miou"),
        ('{"miou": "0.5"}', "says '0.5' for miou"),
        ('{"miou": [1]}', "says '[1]' for miou"),
        ('{"miou": true}', "says 'True' for miou"),
        ('{"miou": NaN}', "says 'nan' for miou"),
        ('{"miou": Infinity}', "says 'inf' for miou"),
        ('{"miou": 59.9}', "says '59.9' for miou"),
        ('{"miou": -0.1}', "says '-0.1' for miou"),
        ('{"miou": 1' + 400 * "0" + "}", "for miou"),
        ('{"miou": 0.5, "localization_accuracy": 84}', "says '84' for localization_accuracy"),
    ],
)
def test_scores_that_cannot_be_are_told_and_the_others_shown(
    tmp_path: Path, capsys: Captured, metrics: str, says: str
) -> None:
    write_run(tmp_path / "lerf_ovs" / "figurines", metrics)
    write_run(tmp_path / "lerf_ovs" / "teatime", {"miou": 0.7})
    assert published_scores.main([str(tmp_path), "--markdown", str(tmp_path / "table.md")]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"lerf_ovs/figurines (scores): {tmp_path}/lerf_ovs/figurines/metrics.json ")
    assert says in err
    assert cells(section(out, "LERF_OVS"), "**ours**, mIoU") == ["", "", "70.0", "", ""]
    assert (tmp_path / "table.md").read_text() in out


def test_scores_of_no_run_are_not_shown(tmp_path: Path, capsys: Captured) -> None:
    write_run(tmp_path / "3d_ovs" / "bed", {"miou": 0.9})
    (tmp_path / "3d_ovs" / "bed" / "run.json").unlink()
    write_run(tmp_path / "3d_ovs" / "sofa", {"miou": 0.9})
    (tmp_path / "3d_ovs" / "sofa" / "run.json").write_text("{")
    assert published_scores.main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "3d_ovs/bed (scores): " in err
    assert "beside no run.json" in err
    assert "3d_ovs/sofa (scores): " in err
    assert "run.json is damaged" in err
    assert cells(section(out, "3D-OVS"), "**ours**, mIoU") == [""] * 6


@pytest.mark.parametrize("labelled", [True, False])
def test_a_run_without_scores_of_answers_is_told(tmp_path: Path, capsys: Captured, labelled: bool) -> None:
    labels = tmp_path / "scene" / "segmentations"
    (labels if labelled else labels.parent).mkdir(parents=True)
    write_run(tmp_path / "3d_ovs" / "bed", {"psnr": 30.0, "miou_of_something": 1.0}, scene=tmp_path / "scene")
    assert published_scores.main([str(tmp_path)]) == 2
    says = f"although {labels} has labels" if labelled else f"{tmp_path / 'scene'} no labels"
    assert says in capsys.readouterr().err


# --- training ----------------------------------------------------------------------------------


def test_scenes_that_are_there_are_trained_on_all_views_and_at_the_published_size(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("splat.scene.scale.PUBLISHED_WIDTH", 60)
    command = [str(tmp_path / "runs"), "--data", str(data), *FAST]
    assert published_scores.main(command) == 0
    out = section(capsys.readouterr().out, "LERF_OVS")
    run = tmp_path / "runs" / "lerf_ovs" / "ramen"
    metrics = json.loads((run / "metrics.json").read_text())
    assert cells(out, "**ours**, mIoU") == [f"{100 * metrics['miou']:.1f}", "", "", "", ""]
    assert "scale 0.625, hold-out 0, protocol lerf." in out
    expected = load_scene(data / "lerf_ovs" / "ramen", 60 / 96, hold_out=0, with_points=False)
    assert (len(expected.train), expected.cameras[0].width) == (10, 60)
    assert json.loads((run / "run.json").read_text())["dataset"] == expected.fingerprint

    gaussians = (run / "gaussians.ply").read_bytes()
    assert published_scores.main(command) == 0
    assert (run / "gaussians.ply").read_bytes() == gaussians
    assert section(capsys.readouterr().out, "LERF_OVS").rstrip() == out.rstrip()
    # Asked for something else, the run that is there is not shown for it.
    assert published_scores.main([*command, "--scale", "1", "--hold-out", "5"]) == 2
    out, err = capsys.readouterr()
    assert "lerf_ovs/ramen (training): " in err
    assert "choose another --out" in err
    assert cells(section(out, "LERF_OVS"), "**ours**, mIoU") == [""] * 5


def test_a_scene_that_fails_stops_neither_the_others_nor_the_tables(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (data / "lerf_ovs" / "figurines").mkdir()
    shutil.copytree(data / "lerf_ovs" / "ramen", data / "mipnerf360" / "room")
    trained = []

    def train(folder: Path, config: TrainConfig, *_: object) -> None:
        trained.append(folder.name)
        if folder.name == "ramen":
            raise OSError(28, "No space left on device", "somewhere")
        if folder.name == "figurines":
            load_scene(config.scene)
        write_run(folder, {"miou": 0.5})

    monkeypatch.setattr(published_scores, "train", train)
    table = tmp_path / "table.md"
    command = [str(tmp_path / "runs"), "--data", str(data), "--markdown", str(table), *FAST]
    assert published_scores.main(command) == 2
    assert trained == ["ramen", "figurines", "room"]
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "lerf_ovs/ramen (training): A file somewhere cannot be used: No space left on device."
    assert err[1].startswith("lerf_ovs/figurines (training): ")
    assert len(err) == 2
    assert cells(section(table.read_text(), "Mip-NeRF 360"), "**ours**, mIoU")[0] == "50.0"

    monkeypatch.setattr(published_scores, "train", lambda *_: 1 / 0)
    assert published_scores.main(command) == 1  # a fault is no mistake in the input
    assert "dictsplat has a fault: ZeroDivisionError" in capsys.readouterr().err


def test_labels_that_nothing_can_be_scored_against_are_told(data: Path, tmp_path: Path, capsys: Captured) -> None:
    for label in (data / "lerf_ovs" / "ramen" / "labels").iterdir():
        label.rename(label.with_name(f"frame_{label.name}"))
    assert published_scores.main([str(tmp_path / "runs"), "--data", str(data), *FAST]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("lerf_ovs/ramen (training): ")
    assert "labels" in err
    assert "frame_test_000" in err
    assert cells(section(out, "LERF_OVS"), "**ours**, mIoU") == [""] * 5


def test_every_set_is_scored_by_its_own_protocol(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data / "lerf_ovs" / "ramen", data / "mipnerf360" / "room")
    shutil.copytree(data / "lerf_ovs" / "ramen", data / "3d_ovs" / "lawn")
    (data / "3d_ovs" / "lawn" / "labels").rename(data / "3d_ovs" / "lawn" / "segmentations")
    shutil.copytree(data / "3d_ovs" / "lawn", data / "3d_ovs" / "bed")
    shutil.rmtree(data / "3d_ovs" / "bed" / "segmentations")
    asked: dict[str, Any] = {}

    def train(folder: Path, config: TrainConfig, reports: Any, scorer: Any) -> None:
        monkeypatch.setattr(published_scores, "score", lambda *options: asked.update({folder.name: options[-2:]}))
        scorer(None, None, "cpu", None)

    monkeypatch.setattr(published_scores, "train", train)
    published_scores.train_scenes(data, tmp_path / "runs", {})
    assert asked == {
        "ramen": (data / "lerf_ovs" / "ramen" / "labels", "lerf"),
        "lawn": (data / "3d_ovs" / "lawn" / "segmentations", "3d-ovs"),
        "bed": (None, None),
        "room": (data / "mipnerf360" / "room" / "labels", "mipnerf360"),
    }
    assert {one.protocol for one in figures.PUBLISHED} == set(PROTOCOLS)


def test_what_no_scene_can_use_is_told_before_any_is_trained(data: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty").mkdir()
    assert published_scores.main([str(tmp_path), "--data", str(tmp_path / "empty")]) == 2
    assert "has none of the sets" in capsys.readouterr().err
    assert published_scores.main([str(tmp_path / "runs"), "--data", str(data), "--preset", "quick"]) == 2
    assert capsys.readouterr().err.startswith("--preset is 'quick'")  # once, and not for every scene
    assert not (tmp_path / "runs").exists()
