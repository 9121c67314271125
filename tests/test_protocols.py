"""Protocols: LangSplatV2's three evaluation scripts and that of 3D-OVS' authors, written again with scipy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import driver
import numpy as np
import pytest
import torch
from label_files import rectangle, write_lerf, write_masks
from scipy import ndimage
from sklearn.metrics import accuracy_score, jaccard_score

from encoders.errors import InputError
from splat.codes import LanguageField
from splat.evaluate import evaluate_language
from splat.gaussians import load_ply
from splat.protocols import LERF, MIPNERF360, OVS3D, PROTOCOLS, Competition, Protocol, read_benchmark
from splat.query import relevancy_maps
from splat.relevancy import read_out
from splat.scene import Camera, load_cameras

SCRIPTS = {"lerf": (0.4, False, 0), "3d-ovs": (0.25, True, 1), "mipnerf360": (0.4, True, 0)}
"""Threshold, whether levels are weighed inside their masks, and the first level, as the three scripts have it."""


def window_mean(image: np.ndarray, side: int) -> np.ndarray:
    inside = ndimage.uniform_filter(np.ones_like(image), side, mode="constant")
    return np.asarray(ndimage.uniform_filter(image, side, mode="constant") / inside)


def stretched(image: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip((image - image.min()) / np.ptp(image) * 2 - 1, 0, 1))


def script(name: str, maps: np.ndarray, beside: np.ndarray | None = None) -> tuple[int, np.ndarray, np.ndarray]:
    """Level, its mask and its smoothed map, for maps [levels, H, W]; ``beside`` is "wood table" in the scene "room"."""
    threshold, inside, first = SCRIPTS[name]
    smoothed = [0.5 * (level + window_mean(level, 29)) for level in maps.astype(np.float64)]
    masks = []
    for number, level in enumerate(smoothed):
        chosen = stretched(level) > threshold
        if beside is not None:
            chosen |= stretched(beside[number].astype(np.float64)) > threshold
        masks.append(window_mean(chosen.astype(float), 7) > 0.5 + 1e-9)
    scores = np.zeros(len(maps))
    for number in range(first, len(maps)):
        level, mask = smoothed[number], masks[number]
        scores[number] = (level * mask).sum() / mask.sum() if inside else level.max()
    best = int(scores.argmax())
    return best, masks[best], smoothed[best]


def random_levels(seed: int, height: int = 72, width: int = 96) -> np.ndarray:
    """Blobs of another size and contrast at each level. float32 [3, H, W]"""
    rng = np.random.default_rng(seed)
    maps = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), size) for size in (4, 7, 11)])
    maps = (maps - maps.min((1, 2), keepdims=True)) / np.ptp(maps, axis=(1, 2), keepdims=True)
    return np.asarray(maps * rng.uniform(0.3, 0.6, (3, 1, 1)) + 0.3, np.float32)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda one: one.name)
def test_levels_and_masks_are_those_of_the_scripts(protocol: Protocol) -> None:
    chosen = []
    for seed in range(40):
        maps = random_levels(seed)
        level, mask, smoothed = script(protocol.name, maps)
        found = read_out(torch.from_numpy(maps), protocol.threshold, rule=protocol.levels)
        assert found.level == level
        # A value within rounding of the threshold may fall on either side.
        assert (found.mask.numpy() != mask).mean() < 2e-3
        np.testing.assert_allclose(found.smoothed, smoothed, atol=1e-5)
        chosen.append(level)
    others = {name: [script(name, random_levels(seed))[0] for seed in range(40)] for name in SCRIPTS}
    assert [name for name in SCRIPTS if others[name] == chosen] == [protocol.name], "the scripts cannot be told apart"
    assert set(chosen) == set(range(SCRIPTS[protocol.name][2], 3))


def test_the_wood_wall_of_the_room_takes_the_wood_table_in() -> None:
    assert (LERF.united, MIPNERF360.united, OVS3D.united) == ({}, {}, {"wood wall": "wood table"})
    for seed in range(10):
        wall, table = random_levels(seed), random_levels(seed + 100)
        level, mask, _ = script("3d-ovs", wall, table)
        found = read_out(torch.from_numpy(wall), 0.25, rule=OVS3D.levels, beside=torch.from_numpy(table))
        assert found.level == level
        assert (found.mask.numpy() != mask).mean() < 2e-3
        assert mask.sum() > 1.05 * script("3d-ovs", wall)[1].sum()


WORDS = {"red": (1, 0, 0), "moss": (0.1, 0.7, 0.2), "wood wall": (0.5, 0.3, 0.1), "wood table": (0.1, 0.2, 0.9)}


@pytest.fixture
def trained(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Scores the tiny run against labels."""
    for word, colour in WORDS.items():
        monkeypatch.setitem(driver.COLOURS, word, colour)
    gaussians, field = load_ply(tiny_run / "gaussians.ply"), LanguageField.load(tiny_run / "language.safetensors")

    def score(folder: Path, protocol: str | None = None) -> dict[str, Any]:
        cameras, _ = load_cameras(tiny_run / "cameras.json")
        return evaluate_language(gaussians, field, cameras, folder, driver.ColourEncoder(), protocol=protocol)

    return score


def rendered(run: Path, view: str, phrases: list[str]) -> np.ndarray:
    """Relevancy maps [phrases, levels, H, W]; pixels where nothing was rendered have their map's lowest value."""
    gaussians, field = load_ply(run / "gaussians.ply"), LanguageField.load(run / "language.safetensors")
    camera: Camera = next(one for one in load_cameras(run / "cameras.json")[0] if one.name == view)
    maps = relevancy_maps(gaussians, field, camera, phrases, driver.ColourEncoder()).numpy()
    unseen = maps <= 0
    lowest = np.where(unseen, np.inf, maps).min((-2, -1), keepdims=True)
    return np.asarray(np.where(unseen, lowest, maps))


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def per_query(result: dict[str, Any]) -> dict[str, float]:
    return {one["query"]: one["iou"] for one in result["per_query"]}


def test_a_run_is_scored_as_by_the_script_for_3d_ovs(
    trained: Callable[..., dict[str, Any]], tiny_run: Path, tmp_path: Path
) -> None:
    """The truth is what the script selects and some more, so that little else scores like it."""
    names, truth = ["moss", "red", "wood wall"], {}
    ious: dict[str, list[float]] = {name: [] for name in names}
    classes, right = [], []
    for view in ("test_000", "test_001"):
        *maps, table = rendered(tiny_run, view, [*names, "wood table"])
        found = [script("3d-ovs", maps[0]), script("3d-ovs", maps[1]), script("3d-ovs", maps[2], table)]
        truth[view] = {
            name: ndimage.binary_dilation(mask, iterations=2)
            for name, (_, mask, _) in zip(names, found, strict=True)
            if (view, name) != ("test_001", "moss")
        }
        for name, (_, mask, _) in zip(names, found, strict=True):
            if name in truth[view]:
                ious[name].append(overlap(mask, truth[view][name]))
        nowhere = np.zeros(table.shape[1:], bool)
        hot = np.stack([truth[view].get(name, nowhere).ravel() for name in names], axis=1)
        won = np.eye(3, dtype=bool)[np.argmax([smoothed for _, _, smoothed in found], axis=0).ravel()]
        classes.append(
            jaccard_score(hot, won, average=None, zero_division=0)[[name in truth[view] for name in names]].mean()
        )
        right.append(accuracy_score(hot, won))
    result = trained(write_masks(tmp_path / "segmentations", truth, names))
    assert result["protocol"] == "3d-ovs"
    # A value within rounding of the threshold may fall on either side.
    assert per_query(result) == pytest.approx({name: np.mean(ious[name]) for name in names}, abs=4e-3)
    every = [value for group in ious.values() for value in group]
    assert result["miou"] == pytest.approx(np.mean(every), abs=4e-3)
    assert result["miou_argmax"] == pytest.approx(np.mean(classes), abs=1e-3)
    assert result["pixel_accuracy"] == pytest.approx(np.mean(right), abs=1e-3)
    assert np.mean(every) > 0.5


@pytest.mark.parametrize("name", ["lerf", "mipnerf360"])
def test_a_run_is_scored_as_by_the_scripts_for_outlines(
    name: str, trained: Callable[..., dict[str, Any]], tiny_run: Path, tmp_path: Path
) -> None:
    """The labelled picture is half as large again as the views, so maps are resized before they are read."""
    width, height, names = 144, 108, ["red", "moss", "wood wall"]
    y, x = (np.mgrid[:height, :width] + 0.5) / 1.5 - 0.5
    objects, ious = [], {}
    for phrase, maps in zip(names, rendered(tiny_run, "test_000", names), strict=True):
        large = [ndimage.map_coordinates(level, (y, x), order=1, mode="nearest") for level in maps]
        mask = script(name, np.stack(large))[1]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1], rows[-1]
        objects.append(rectangle(phrase, *map(int, (x0, y0, x1, y1))))
        truth = np.zeros_like(mask)
        truth[y0 : y1 + 1, x0 : x1 + 1] = True
        ious[phrase] = overlap(mask, truth)
    write_lerf(tmp_path, "test_000", objects, width, height)
    assert per_query(trained(tmp_path, name)) == pytest.approx(ious, abs=4e-3)


def test_classes_compete_as_their_authors_score() -> None:
    """`evaluation_segmentation_test`: scikit-learn's scores over all pixels, of which a third has no label here."""
    competition, ious, accuracies = Competition(), [], []
    for seed in range(4):
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(6, 40, 50)), (0, 4, 4))
        relevancy, unlabelled = noise[:5] + 0.4 * np.roll(noise[:5], 3, 2), noise[5] > 0.03
        truth = np.stack([(noise[:5].argmax(0) == number) & ~unlabelled for number in range(5)])
        truth[0, :5, :5] = truth[1, :5, :5] = True  # two labels on a pixel
        competition.add(relevancy, truth)
        hot = np.eye(5, dtype=int)[relevancy.argmax(0).ravel()]
        labels = truth.reshape(5, -1).T.astype(int)
        ious.append(jaccard_score(labels, hot, average=None).mean())
        accuracies.append(accuracy_score(labels, hot))
    assert competition.miou == pytest.approx(np.mean(ious))
    assert competition.accuracy == pytest.approx(np.mean(accuracies))
    assert 0.2 < competition.accuracy < 0.8


def test_a_view_counts_as_one_however_many_classes_it_shows() -> None:
    competition = Competition()
    competition.add(np.array([[[0.9, 0.9]], [[0.1, 0.1]]]), np.array([[[1, 1]], [[0, 0]]], bool))
    competition.add(np.array([[[0.9, 0.1]], [[0.1, 0.9]]]), np.array([[[0, 1]], [[1, 0]]], bool))
    competition.add(np.array([[[0.9, 0.1]], [[0.1, 0.9]]]), np.zeros((2, 1, 2), bool))
    assert (competition.miou, competition.accuracy) == (0.5, 0.5)


def outlines(folder: Path) -> Path:
    write_lerf(folder, "test_000", [rectangle("red", 0, 0, 9, 9)], 96, 72)
    return folder


@pytest.mark.parametrize(
    ("marker", "asked", "expected"),
    [
        (None, None, "lerf"),
        ("mipnerf360", None, "mipnerf360"),
        ("\ufeffmipnerf360\r\n", None, "mipnerf360"),
        ("lerf\n", None, "lerf"),
        ("mipnerf360\n", "lerf", "lerf"),
        (None, "mipnerf360", "mipnerf360"),
    ],
)
def test_outlines_are_scored_as_lerfs_unless_told_otherwise(
    tmp_path: Path, marker: str | None, asked: str | None, expected: str
) -> None:
    outlines(tmp_path)
    if marker is not None:
        (tmp_path / "protocol.txt").write_text(marker, encoding="utf-8")
    benchmark = read_benchmark(tmp_path, asked)
    assert benchmark.protocol is PROTOCOLS[expected]
    assert [view.name for view in benchmark.labels] == ["test_000"]


def test_masks_with_classes_are_3d_ovs(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, {"00": {"red": np.ones((4, 4), bool)}})
    assert read_benchmark(folder).protocol is OVS3D
    with pytest.raises(InputError, match="no label files"):
        read_benchmark(folder, "lerf")


def test_protocols_that_do_not_fit_are_named(tmp_path: Path) -> None:
    outlines(tmp_path)
    with pytest.raises(InputError, match="names its classes there"):
        read_benchmark(tmp_path, "3d-ovs")
    with pytest.raises(InputError, match=r"--protocol asks for the protocol 'coco'; there are lerf, 3d-ovs, mipnerf"):
        read_benchmark(tmp_path, "coco")
    (tmp_path / "protocol.txt").write_text("mip")
    with pytest.raises(InputError, match=r"protocol\.txt asks for the protocol 'mip'"):
        read_benchmark(tmp_path)
    (tmp_path / "protocol.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="should hold the name of a protocol"):
        read_benchmark(tmp_path)


Dictsplat = Callable[..., tuple[int, str, str]]


def test_eval_takes_masks(dictsplat: Dictsplat, tiny_scene: Path, tiny_run: Path, tmp_path: Path) -> None:
    run, folder = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "segmentations"
    for view in (tiny_scene / "labels").iterdir():
        if view.is_dir():
            shutil.copytree(view, folder / view.name)
    names = sorted({mask.stem for mask in folder.rglob("*.png")})
    (folder / "classes.txt").write_text("\n".join(names))
    code, out, err = dictsplat("eval", run, "--labels", folder, "--json")
    assert code == 0, err
    metrics = json.loads(out)
    assert metrics["protocol"] == "3d-ovs"
    assert [query["query"] for query in metrics["per_query"]] == names
    assert all(query["level"] > 0 for query in metrics["per_query"])
    assert 0 <= metrics["miou_argmax"] <= 1


def test_eval_takes_a_protocol(dictsplat: Dictsplat, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    code, out, err = dictsplat("eval", run, "--protocol", "mipnerf360", "--json")
    assert code == 0, err
    assert json.loads(out)["protocol"] == "mipnerf360"
    code, out, err = dictsplat("eval", run, "--json")
    assert json.loads(out)["protocol"] == "lerf"


def test_eval_refuses_protocols_without_labels(
    refused: Callable[..., str], scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert "'coco'; there are lerf, 3d-ovs, mipnerf360" in refused("eval", run, "--protocol", "coco")
    shutil.rmtree(scene / "labels")
    assert "has no labels to score by lerf" in refused("eval", run, "--scene", scene, "--protocol", "lerf")
