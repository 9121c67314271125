"""3D-OVS: its folders, and its two ways to score written again with scipy on random maps."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from encoders.errors import InputError
from encoders.files import write_png
from splat.evaluate import evaluate_answers
from splat.protocols import Competition, read_benchmark
from splat.relevancy import THRESHOLD, read_out
from splat.scene.cameras import Camera

CLASSES = ("banana", "black leather shoe", "Portuguese egg tart", "wood wall")
HEIGHT, WIDTH, VIEWS = 48, 60, 3


@dataclass
class ReadOut:
    relevancy: np.ndarray
    level: int
    mask: np.ndarray
    point: tuple[int, int]


def blobs(seed: int, *shape: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(*shape, HEIGHT, WIDTH))
    smooth = ndimage.gaussian_filter(noise, (*[0] * len(shape), 5, 5))
    return 0.1 + 0.8 * (smooth - smooth.min()) / np.ptp(smooth)


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    """bool [views, classes, H, W], written as 3D-OVS has it; the second view does not show the tart."""
    winner = blobs(0, VIEWS, len(CLASSES)).argmax(1)
    winner[:, :6] = -1
    masks = np.stack([winner == number for number in range(len(CLASSES))], axis=1)
    masks[1, 2] = False
    folder = tmp_path / "segmentations"
    folder.mkdir()
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")
    for view, shown in enumerate(masks):
        for name, mask in zip(CLASSES, shown, strict=True):
            if mask.any():
                write_png(folder / f"{view:02}" / f"{name}.png", np.where(mask, 255, 0).astype(np.uint8))
    return masks


def camera(name: str, width: int = WIDTH, height: int = HEIGHT) -> Camera:
    return Camera(name, width, height, np.eye(3), np.eye(4))


def window_mean(image: np.ndarray, side: int) -> np.ndarray:
    inside = ndimage.uniform_filter(np.ones_like(image), side, mode="constant")
    return ndimage.uniform_filter(image, side, mode="constant") / inside


def test_3d_ovs_is_scored_as_published(truth: np.ndarray, tmp_path: Path) -> None:
    maps = blobs(1, VIEWS, len(CLASSES), 3)
    maps += 0.25 * truth[:, :, None] * [[[[1.0]], [[0.4]], [[0.7]]]]
    benchmark = read_benchmark(tmp_path / "segmentations")
    assert (benchmark.threshold, benchmark.compete) == (0.25, True)

    def answer(view: Camera, phrases: list[str]) -> list[ReadOut]:
        assert phrases == list(CLASSES)
        outs = [read_out(torch.from_numpy(levels), benchmark.threshold) for levels in maps[int(view.name)]]
        return [ReadOut(out.smoothed.numpy(), out.level, out.mask.numpy(), out.point) for out in outs]

    result = evaluate_answers(answer, [camera(f"{view:02}") for view in range(VIEWS)], benchmark)
    overlaps, classes, right, labelled = [], [], 0, 0
    for view, shown in zip(maps, truth, strict=True):
        best = []
        for levels, mask in zip(view, shown, strict=True):
            smoothed = np.stack([0.5 * (level + window_mean(level, 29)) for level in levels])
            chosen = smoothed[smoothed.max((1, 2)).argmax()]
            best.append(chosen)
            stretched = np.clip((chosen - chosen.min()) / np.ptp(chosen) * 2 - 1, 0, 1)
            selected = window_mean((stretched > 0.25).astype(float), 7) > 0.5 + 1e-9
            if mask.any():
                overlaps.append((selected & mask).sum() / (selected | mask).sum())
        given = np.where(shown.any(0), np.argmax(best, 0), -1)
        classes += [((given == n) & m).sum() / ((given == n) | m).sum() for n, m in enumerate(shown) if m.any()]
        right += sum(int((given[m] == n).sum()) for n, m in enumerate(shown))
        labelled += int(shown.any(0).sum())
    assert len(overlaps) == len(classes) == VIEWS * len(CLASSES) - 1
    # A value within rounding of the threshold may fall on either side.
    assert result["miou"] == pytest.approx(np.mean(overlaps), abs=2e-3)
    assert result["miou_argmax"] == pytest.approx(np.mean(classes), abs=2e-3)
    assert result["pixel_accuracy"] == pytest.approx(right / labelled, abs=1e-3)
    assert 0.3 < result["miou_argmax"] < 0.99
    assert result["labelled_views"] == VIEWS


def test_masks_and_boxes_at_any_size(truth: np.ndarray, tmp_path: Path) -> None:
    views = read_benchmark(tmp_path / "segmentations").labels
    assert [view.name for view in views] == ["00", "01", "02"]
    for view, shown in zip(views, truth, strict=True):
        for name, mask in zip(CLASSES, shown, strict=True):
            np.testing.assert_array_equal(view.mask(name, WIDTH, HEIGHT), mask)
            labels, _ = ndimage.label(mask, np.ones((3, 3)))
            found = [[x.start, y.start, x.stop - 1, y.stop - 1] for y, x in ndimage.find_objects(labels)]
            assert sorted(view.boxes(name, WIDTH, HEIGHT).tolist()) == sorted(found)
            double = view.mask(name, 2 * WIDTH, 2 * HEIGHT)
            np.testing.assert_array_equal(double, mask.repeat(2, 0).repeat(2, 1))
    assert views[1].boxes(CLASSES[2], WIDTH, HEIGHT).shape == (0, 4)


def test_classes_that_overlap_are_right_either_way() -> None:
    competition = Competition()
    truth = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    competition.add(np.array([[[0.9, 0.2, 0.1, 0.9]], [[0.1, 0.8, 0.9, 0.1]]]), truth)
    assert competition.accuracy == 1
    assert competition.miou == pytest.approx((1 / 2 + 2 / 2) / 2)


def test_other_folders_are_lerfs(tmp_path: Path) -> None:
    (tmp_path / "frame_00001.json").write_text('{"info": {"width": 4, "height": 3}, "objects": []}')
    benchmark = read_benchmark(tmp_path)
    assert (benchmark.threshold, benchmark.compete) == (THRESHOLD, False)


def no_classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("\n \n")


def path_as_class(folder: Path) -> None:
    (folder / "classes.txt").write_text("../secret\n")


def no_masks(folder: Path) -> None:
    for mask in folder.rglob("*.png"):
        mask.unlink()


def broken_mask(folder: Path) -> None:
    for mask in folder.rglob("*.png"):
        mask.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_classes, "names no classes"),
        (path_as_class, "no file can be named by"),
        (no_masks, "has no masks"),
        (broken_mask, r"banana\.png"),
    ],
)
def test_unusable_labels_are_named(
    spoil: Callable[[Path], None], sentence: str, truth: np.ndarray, tmp_path: Path
) -> None:
    spoil(tmp_path / "segmentations")
    with pytest.raises(InputError, match=sentence):
        read_benchmark(tmp_path / "segmentations").labels[0].mask("banana", WIDTH, HEIGHT)


def test_a_run_is_scored_by_masks(
    dictsplat: Callable[..., tuple[int, str, str]], tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run, folder = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "segmentations"
    for view in (tiny_scene / "labels").iterdir():
        if view.is_dir():
            shutil.copytree(view, folder / view.name)
    names = sorted({mask.stem for mask in folder.rglob("*.png")})
    (folder / "classes.txt").write_text("\n".join(names))
    code, out, err = dictsplat("eval", run, "--labels", folder, "--json")
    assert code == 0, err
    metrics = json.loads(out)
    assert [query["query"] for query in metrics["per_query"]] == names
    assert 0 <= metrics["miou_argmax"] <= metrics["pixel_accuracy"] <= 1
