"""Gaussians of other programs: brought into the scene's frame, and held against its photos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from encoders.errors import InputError
from splat.evaluate import renderer
from splat.gaussians import Gaussians, load_ply, save_ply
from splat.interchange.given_gaussians import complaint, in_frame_of, moved
from splat.pipeline import train
from splat.scene import Camera, load_scene
from splat.train_config import TrainConfig

TURN = Rotation.from_euler("xyz", [25, -70, 130], degrees=True).as_matrix()
COLMAP_AXES = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])


def colourful(count: int = 300) -> Gaussians:
    """Gaussians before a camera at the origin, whose colours depend much on the direction."""
    generator = torch.Generator().manual_seed(3)
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    means = random(count, 3) * 0.8 + torch.tensor([0.0, 0.0, 4.0])
    return Gaussians(means, random(count, 4) * 2, random(count, 3) * 0.3 - 2, random(count), random(count, 16, 3) * 0.5)


def test_a_moved_scene_looks_the_same_to_a_camera_that_moved_along() -> None:
    scene, K = colourful(), np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    translation, scale = np.array([3.0, -2.0, 0.5]), 0.37
    camera = Camera("a", 64, 48, K, np.eye(4))
    viewmat = np.eye(4)  # by hand: the camera at the origin turns along, and what it sees is ``scale`` times as far
    viewmat[:3, :3] = TURN.T
    viewmat[:3, 3] = -TURN.T @ translation
    before = renderer(scene)(camera)
    after = renderer(moved(scene, TURN, translation, scale))(Camera("b", 64, 48, K, viewmat))
    assert before.std() > 0.05
    np.testing.assert_allclose(after, before, atol=2e-4)
    # The colours alone would show it, if they did not turn.
    stiff = moved(scene, TURN, translation, scale)
    stiff.sh = scene.sh
    assert np.abs(renderer(stiff)(Camera("b", 64, 48, K, viewmat)) - before).max() > 0.05


def homogeneous(rows: np.ndarray) -> np.ndarray:
    return np.vstack([rows, [0, 0, 0, 1]])


@pytest.fixture
def nerfstudio(tiny_scene: Path, tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The tiny scene as if from COLMAP, and the tiny run's Gaussians as nerfstudio exports them."""
    scene = shutil.copytree(tiny_scene, tmp_path / "scene")
    content = json.loads((scene / "transforms.json").read_text())
    (scene / "transforms.json").write_text(json.dumps(content | {"applied_transform": COLMAP_AXES.tolist()}))
    own, scale = np.column_stack([TURN, [0.3, -0.2, 0.1]]), 0.42  # it turns and centres the poses, then shrinks
    said = (homogeneous(own) @ homogeneous(COLMAP_AXES))[:3]  # and says how from COLMAP's coordinates
    export = tmp_path / "export"
    export.mkdir()
    (export / "dataparser_transforms.json").write_text(json.dumps({"transform": said.tolist(), "scale": scale}))
    gaussians = load_ply(tiny_run / "gaussians.ply")
    save_ply(export / "splat.ply", moved(gaussians, TURN, scale * own[:, 3], scale))
    return scene, export / "splat.ply"


def trained(scene: Path, gaussians: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    config = TrainConfig(scene, stages=("rgb",), gaussians=gaussians, device="cpu")
    metrics = train(out, config, lambda _stage: lambda _done, _total, message: said.append(message))
    return metrics, said


def test_gaussians_that_nerfstudio_exported_are_brought_back(
    tiny_run: Path, nerfstudio: tuple[Path, Path], tmp_path: Path
) -> None:
    scene, exported = nerfstudio
    metrics, said = trained(scene, exported, tmp_path / "run")
    mine, theirs = load_ply(tmp_path / "run" / "gaussians.ply"), load_ply(tiny_run / "gaussians.ply")
    torch.testing.assert_close(mine.means, theirs.means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mine.log_scales, theirs.log_scales, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.sh, theirs.sh, atol=1e-4, rtol=1e-4)
    wanted = json.loads((tiny_run / "metrics.json").read_text())["psnr"]
    assert metrics["psnr"] == pytest.approx(wanted, abs=0.01)
    assert not [message for message in said if "do not show the photos" in message]
    assert trained(scene, exported, tmp_path / "run")[0]["psnr"] == metrics["psnr"]  # again: done before


def test_gaussians_of_another_frame_are_said_not_to_show_the_photos(
    nerfstudio: tuple[Path, Path], tmp_path: Path
) -> None:
    scene, exported = nerfstudio
    (exported.parent / "dataparser_transforms.json").unlink()
    _, said = trained(scene, exported, tmp_path / "run")
    assert len([message for message in said if "they do not show the photos" in message]) == 1


def test_the_mean_colour_of_the_photos_is_what_gaussians_must_beat(tiny_scene: Path, tiny_run: Path) -> None:
    scene = load_scene(tiny_scene, with_points=False)
    gaussians = load_ply(tiny_run / "gaussians.ply")
    assert complaint(gaussians, scene) == ""
    elsewhere = Gaussians(*(tensor.clone() for tensor in vars(gaussians).values()))
    elsewhere.means += 1000
    told = complaint(elsewhere, scene)
    photos = [scene.image(i) / 255 for i in scene.train[::2]]
    plain = np.mean([-10 * np.log10(photo.var(axis=(0, 1)).mean()) for photo in photos])
    assert f"their mean colour alone {plain:.1f}" in told


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ('{"transform": [[1, 0, 0, 0]], "scale": 1}', "transform"),
        ('{"transform": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "scale": 0}', "scale"),
        ('{"transform": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "scale": 1}', "bends"),
        ('{"transform": [[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "scale": 1}', "bends"),
    ],
)
def test_a_frame_that_cannot_be_undone_is_refused(
    nerfstudio: tuple[Path, Path], refused: Callable[..., str], tmp_path: Path, content: str, sentence: str
) -> None:
    scene, exported = nerfstudio
    (exported.parent / "dataparser_transforms.json").write_text(content)
    with pytest.raises(InputError, match=f"dataparser_transforms.json.*{sentence}"):
        in_frame_of(load_ply(exported), exported, scene)
    told = refused("train", scene, "--out", tmp_path / "run", "--gaussians", exported, "--encoder", "colour")
    assert sentence in told
    assert not (tmp_path / "run" / "gaussians.ply").exists()
