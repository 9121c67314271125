"""`--hold-out`: which views a training does not see, and runs that see all of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.errors import InputError
from encoders.files import write_json
from splat.features import FeatureStore
from splat.outline import Outline
from splat.scene import load_scene
from splat.scene.cameras import load_cameras
from splat.trained import Trained

Dictsplat = Callable[..., tuple[int, str, str]]
FAST = ("--preset", "fast", "--encoder", "colour")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Seven views, and no list that says which of them are for the test."""
    frames = []
    for number in range(7):
        path = tmp_path / "plain" / "images" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 10 * number, np.uint8)).save(path)
        pose = np.eye(4)
        pose[0, 3] = number
        frames.append({"file_path": f"images/{number}.png", "transform_matrix": pose.tolist()})
    write_json(tmp_path / "plain" / "transforms.json", {"fl_x": 30.0, "frames": frames})
    return tmp_path / "plain"


@pytest.mark.parametrize(
    ("hold_out", "test"), [(None, [0]), (0, []), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (7, [0]), (100, [0])]
)
def test_every_nth_view_by_name_is_held_out(plain: Path, hold_out: int | None, test: list[int]) -> None:
    loaded = load_scene(plain, with_points=False, hold_out=hold_out)
    assert loaded.test == test
    assert loaded.train == [i for i in range(7) if i not in test]


def test_an_explicit_number_overrules_the_lists_of_the_scene(tiny_scene: Path) -> None:
    own = load_scene(tiny_scene, with_points=False)
    assert own.test_names == ["test_000", "test_001"]
    everything = load_scene(tiny_scene, with_points=False, hold_out=0)
    assert (len(everything.train), everything.test) == (10, [])
    fifth = load_scene(tiny_scene, with_points=False, hold_out=5)
    assert fifth.test_names == [fifth.cameras[0].name, fifth.cameras[5].name]
    assert len({one.fingerprint for one in (own, everything, fifth)}) == 3


def test_the_number_that_is_the_default_changes_nothing(plain: Path) -> None:
    assert (
        load_scene(plain, hold_out=8, with_points=False).fingerprint == load_scene(plain, with_points=False).fingerprint
    )


@pytest.mark.parametrize("hold_out", [1, -1])
def test_numbers_that_leave_nothing_to_train_on(
    plain: Path, refused: Callable[..., str], tmp_path: Path, hold_out: int
) -> None:
    with pytest.raises(InputError, match=f"in {hold_out} cannot be held out"):
        load_scene(plain, hold_out=hold_out)
    assert f"--hold-out is {hold_out}" in refused("train", plain, "--out", tmp_path / "run", "--hold-out", hold_out)
    assert not (tmp_path / "run").exists()


def test_a_run_that_saw_all_views_can_be_used_like_any_other(
    dictsplat: Dictsplat, refused: Callable[..., str], tiny_scene: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("train", tiny_scene, "--out", run, *FAST)
    code, out, err = dictsplat(*options, "--hold-out", 0)
    assert code == 0, err
    assert "held-out" not in out
    assert json.loads((run / "run.json").read_text())["config"]["hold_out"] == 0
    cameras, held_out = load_cameras(run / "cameras.json")
    assert (len(cameras), held_out) == (10, [])
    assert all(FeatureStore(run / "features").has(camera.name) for camera in cameras)

    # Pictures of views that were trained on would tell how well it remembers; answers are scored as ever.
    scored = json.loads((run / "metrics.json").read_text())
    assert not {"psnr", "ssim"} & scored.keys()
    assert 0 <= scored["miou"] <= 1
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "10 to train on, 0 held out" in page
    assert "PSNR" not in page

    gaussians = (run / "gaussians.ply").read_bytes()
    assert dictsplat(*options, "--hold-out", 0)[0] == 0
    assert dictsplat("train", "--out", run, "--resume")[0] == 0
    assert (run / "gaussians.ply").read_bytes() == gaussians
    assert "was trained with --hold-out 0 and you ask for no --hold-out" in refused(*options)
    assert "was trained with --hold-out 0 and you ask for --hold-out 4" in refused(*options, "--hold-out", 4)

    assert dictsplat("eval", run)[0] == 0
    assert json.loads((run / "metrics.json").read_text())["miou"] == scored["miou"]
    code, out, err = dictsplat("query", run, "red", "--json")
    assert code == 0, err
    assert not json.loads(out)["results"][0]["held_out"]
    assert len(Trained.load(run).held_out()) == 10
    assert sorted(Outline.read(run).views) == [camera.name for camera in cameras]
    assert dictsplat("select", run, "red", "--out", tmp_path / "red.ply")[0] == 0
    assert dictsplat("export", run, tmp_path / "features", "--as", "langsplat-features")[0] == 0
    assert len(list((tmp_path / "features").glob("*_s.npy"))) == 10


def test_a_run_from_before_there_was_a_choice(spoiled: Path, dictsplat: Dictsplat) -> None:
    record = json.loads((spoiled / "run.json").read_text())
    assert record["config"].pop("hold_out") is None
    write_json(spoiled / "run.json", record)
    before = json.loads((spoiled / "metrics.json").read_text())["psnr"]
    assert dictsplat("eval", spoiled)[0] == 0
    assert json.loads((spoiled / "metrics.json").read_text())["psnr"] == pytest.approx(before)
    assert dictsplat("train", "--out", spoiled, "--resume")[0] == 0


def test_scenes_of_a_list_are_held_against_it(
    dictsplat: Dictsplat, tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text(f"{tiny_scene}\n")
    options = ("train", "--scenes", tmp_path / "list.txt", "--out", tmp_path / "runs", *FAST)
    assert dictsplat(*options, "--hold-out", 0)[0] == 0
    assert load_cameras(tmp_path / "runs" / "tiny" / "cameras.json")[1] == []
    code, _, err = dictsplat(*options, "--hold-out", 3)
    assert code == 2
    assert "tiny (training): " in err
    assert "--hold-out 0 and you ask for --hold-out 3" in err
    monkeypatch.setattr("app.cluster_list.train", lambda *_: pytest.fail("trained again"))
    assert dictsplat(*options, "--hold-out", 0)[0] == 0
