"""Scoring: the read-out rule against loops over pixels, metrics against formulas, label files, averages."""

import json
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from encoders.errors import InputError
from splat import relevancy
from splat.evaluate import ViewScore, evaluate_answers, evaluate_views, in_any_box, iou
from splat.image_metrics import psnr, ssim
from splat.lerf_labels import read_labels, read_view_labels
from splat.protocols import Benchmark
from splat.scene.cameras import Camera
from splat.scene.demo import write_demo_scene

# --- the read-out rule -------------------------------------------------------------------------------------


def window_mean(image, side):
    """Mean over the part of each pixel's window that lies in the picture: the definition, pixel by pixel."""
    reach, result = side // 2, np.empty(image.shape)
    for y, x in np.ndindex(image.shape):
        window = image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        result[y, x] = window.astype(np.float64).mean()
    return result


def published_mask(smoothed, threshold):
    """LangSplatV2's mask from a smoothed map, written with scipy."""
    output = smoothed - smoothed.min()
    output = np.clip(output / (output.max() + 1e-9) * 2 - 1, 0, 1)
    chosen = (output > threshold).astype(float)
    inside = ndimage.uniform_filter(np.ones_like(chosen), 7, mode="constant")
    return ndimage.uniform_filter(chosen, 7, mode="constant") / inside > 0.5 + 1e-9


def random_maps(seed, levels=3, height=40, width=53):
    """Smooth blobs with noise, 0.05..0.95, as relevancy maps look."""
    rng = np.random.default_rng(seed)
    maps = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(levels)])
    maps = (maps - maps.min()) / (maps.max() - maps.min()) * 0.8 + 0.1
    return torch.from_numpy((maps + rng.uniform(-0.05, 0.05, maps.shape)).astype(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_read_out_follows_the_published_protocol(seed):
    maps = random_maps(seed)
    pooled = np.stack([window_mean(level.numpy(), 29) for level in maps])
    smoothed = 0.5 * (maps.numpy() + pooled)
    level = int(smoothed.max(axis=(1, 2)).argmax())
    result = relevancy.read_out(maps)
    assert result.level == level
    np.testing.assert_allclose(result.smoothed, smoothed[level], atol=1e-5)
    expected = published_mask(smoothed[level], 0.4)
    assert 0.01 < expected.mean() < 0.9
    # A value within float32's rounding of the threshold may fall on either side.
    assert (result.mask.numpy() != expected).mean() < 0.001
    where = int(pooled.max(axis=(1, 2)).argmax())
    y, x = np.unravel_index(pooled[where].argmax(), pooled[where].shape)
    assert result.point == (x, y)


@pytest.mark.parametrize("shape", [(3, 33, 61), (2, 2, 9, 70), (7, 12)])
def test_pooling_is_the_mean_of_the_pixels_inside(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = [window_mean(image, 29) for image in maps.reshape(-1, *shape[-2:]).numpy()]
    pooled = np.reshape(expected, shape)
    np.testing.assert_allclose(relevancy.pool(maps), pooled, atol=1e-6)
    np.testing.assert_allclose(relevancy.smooth(maps), 0.5 * (maps.numpy() + pooled), atol=1e-6)


def test_the_vote_is_a_strict_majority_of_the_pixels_inside():
    chosen = torch.rand(30, 41, generator=torch.Generator().manual_seed(2)) < 0.5
    expected = window_mean(chosen.numpy(), 7) > 0.5
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(relevancy.vote(chosen), expected)
    half = torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    assert not relevancy.vote(half).any()


def test_a_fixed_level_answers_alone():
    maps = random_maps(5)
    alone = relevancy.read_out(maps[1:2])
    fixed = relevancy.read_out(maps, level=1)
    assert fixed.level == 1
    assert fixed.point == alone.point
    assert torch.equal(fixed.mask, alone.mask)


def test_a_higher_threshold_selects_less():
    maps = random_maps(6)
    areas = [int(relevancy.read_out(maps, threshold).mask.sum()) for threshold in (0.2, 0.4, 0.6)]
    assert areas[0] > areas[1] > areas[2] > 0


def test_pixels_without_a_rendering_do_not_move_the_threshold():
    """A hole in the scene, far from the object, selects nothing and changes the mask nowhere."""
    maps = torch.full((1, 90, 120), 0.45)
    maps[:, 20:50, 20:50] = 0.9
    whole = relevancy.read_out(maps)
    maps[:, 70:, 100:] = 0
    holed = relevancy.read_out(maps)
    assert torch.equal(holed.mask, whole.mask)
    assert 600 < int(whole.mask.sum()) < 1000
    assert whole.mask[35, 35]


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_map_without_contrast_selects_nothing(value):
    result = relevancy.read_out(torch.full((3, 20, 20), value))
    assert not result.mask.any()
    assert relevancy.bounding_box(result.mask) is None


def test_bounding_box_ends_after_the_last_pixel():
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[3:5, 2] = True
    mask[7, 9] = True
    assert relevancy.bounding_box(mask) == (2, 3, 10, 8)


# --- image metrics -----------------------------------------------------------------------------------------


def noisy_pair(height=37, width=50):
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.uniform(size=(height, width, 3)), (2, 2, 0))
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    return np.clip(truth + rng.normal(scale=0.05, size=truth.shape), 0, 1), truth


def test_psnr_is_the_formula():
    picture, truth = noisy_pair()
    assert psnr(picture, truth) == pytest.approx(-10 * np.log10(np.mean((picture - truth) ** 2)), abs=1e-6)
    half = np.full((20, 20, 3), 128, np.uint8)
    assert psnr(half, half.astype(np.float32) / 255) > 99
    assert psnr(half, half + np.uint8(2)) == pytest.approx(20 * np.log10(255 / 2), abs=1e-6)


def test_ssim_is_the_formula_with_a_gaussian_window():
    """Wang et al. 2004, eq. 13, with the window laid over every position where it fits."""
    picture, truth = noisy_pair()
    axis = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for channel in range(3):
        a, b = (np.lib.stride_tricks.sliding_window_view(p[..., channel], (11, 11)) for p in (picture, truth))
        mean_a, mean_b = (np.einsum("yxij,ij->yx", w, window) for w in (a, b))
        var_a = np.einsum("yxij,ij->yx", a * a, window) - mean_a**2
        var_b = np.einsum("yxij,ij->yx", b * b, window) - mean_b**2
        cov = np.einsum("yxij,ij->yx", a * b, window) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim(picture, truth) == pytest.approx(np.mean(values), abs=1e-6)
    assert ssim(truth, truth) == pytest.approx(1)
    with pytest.raises(InputError, match="larger --scale"):
        ssim(picture[:10], truth[:10])


# --- label files -------------------------------------------------------------------------------------------


def write_lerf(folder, name, objects, width=60, height=40):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"info": {"name": f"{name}.jpg", "width": width, "height": height}, "objects": objects}
    (folder / f"{name}.json").write_text(json.dumps(content))


def rectangle(category, x0, y0, x1, y1):
    outline = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    return {"category": category, "segmentation": outline, "bbox": [x0, y0, x1, y1]}


def test_lerf_pieces_of_a_category_become_one_mask_with_several_boxes(tmp_path):
    cups = [rectangle("cup", 2, 3, 9, 8), rectangle("cup", 20, 3, 25, 8)]
    write_lerf(tmp_path, "a", [cups[0], rectangle("tree", 0, 0, 4, 4), cups[1]])
    (view,) = read_labels(tmp_path)
    assert (view.name, view.categories) == ("a", ["cup", "tree"])
    expected = np.zeros((40, 60), bool)
    expected[3:9, 2:10] = True
    expected[3:9, 20:26] = True
    np.testing.assert_array_equal(view.mask("cup"), expected)
    np.testing.assert_array_equal(view.boxes("cup"), [[2, 3, 9, 8], [20, 3, 25, 8]])


def test_labels_follow_the_rendered_size(tmp_path):
    write_lerf(tmp_path, "a", [rectangle("cup", 8, 4, 31, 19)])
    (view,) = read_labels(tmp_path)
    expected = np.zeros((20, 30), bool)
    expected[2:10, 4:16] = True
    half = view.mask("cup", 30, 20)
    assert iou(half, expected) > 0.85
    np.testing.assert_allclose(view.boxes("cup", 30, 20), [[3.75, 1.75, 15.25, 9.25]])


def test_labelme_files_are_read(tmp_path):
    shapes = [
        {"label": "cup", "points": [[30, 30], [10, 5]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[0, 0], [10, 0], [0, 10]], "shape_type": "polygon"},
    ]
    content = {"imagePath": "a.jpg", "imageWidth": 60, "imageHeight": 40, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (view,) = read_labels(tmp_path)
    np.testing.assert_array_equal(view.boxes("cup"), [[10, 5, 30, 30]])
    assert view.mask("cup").sum() == 21 * 26
    assert view.mask("cat")[2, 2]
    assert not view.mask("cat")[8, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not valid JSON"),
        ("[]", "neither LERF nor labelme"),
        ('{"info": SIZE}', "objects"),
        ('{"info": {"width": 0, "height": 4}, "objects": []}', "info.width"),
        ('{"info": SIZE, "objects": [{"category": "a", "segmentation": []}]}', "segmentation"),
        ('{"info": SIZE, "objects": [{"category": " ", "segmentation": [[1, 2]]}]}', "category"),
        ('{"info": SIZE, "objects": [{"category": "a", "segmentation": [[1, NaN]]}]}', "finite"),
        ('{"imageWidth": 4, "imageHeight": 4, "shapes": [CIRCLE]}', "shape_type"),
    ],
)
def test_bad_label_files_are_named(tmp_path, text, message):
    circle = '{"label": "a", "points": [[1, 2], [2, 3]], "shape_type": "circle"}'
    text = text.replace("SIZE", '{"width": 4, "height": 4}').replace("CIRCLE", circle)
    (tmp_path / "view.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_view_labels(tmp_path / "view.json")
    assert "view.json" in str(caught.value)


def test_missing_and_empty_label_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_labels(tmp_path / "nothing")
    with pytest.raises(InputError, match="no label files"):
        read_labels(tmp_path)


# --- scores ------------------------------------------------------------------------------------------------


@dataclass
class FixedAnswer:
    mask: np.ndarray
    point: tuple[int, int]
    level: int = 1

    @property
    def relevancy(self):
        return self.mask.astype(np.float32)


def camera(name, width=60, height=40):
    return Camera(name, width, height, np.diag([50.0, 50.0, 1.0]), np.eye(4))


def block(x0, y0, x1, y1):
    mask = np.zeros((40, 60), bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def test_scores_average_over_the_views_that_show_a_category(tmp_path):
    write_lerf(tmp_path, "a", [rectangle("cup", 0, 0, 9, 9), rectangle("cat", 30, 0, 39, 9)])
    write_lerf(tmp_path, "b", [rectangle("cup", 10, 10, 19, 19)])
    write_lerf(tmp_path, "unknown", [rectangle("cup", 0, 0, 9, 9)])
    answers = {
        ("a", "cup"): FixedAnswer(block(0, 0, 9, 4), (3, 3), 0),
        ("a", "cat"): FixedAnswer(block(30, 0, 39, 9), (39, 9), 2),
        ("b", "cup"): FixedAnswer(block(10, 15, 19, 24), (9, 12), 0),
    }
    seen = []
    result = evaluate_answers(
        lambda view, phrases: [answers[view.name, phrase] for phrase in phrases],
        [camera("a"), camera("b"), camera("c")],
        Benchmark(read_labels(tmp_path)),
        watch=seen.append,
    )
    # By hand: 50 of 100, 100 of 100, and 50 of 150 pixels; points inside, on the edge, and left of the box.
    assert result["miou"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert result["localization_accuracy"] == pytest.approx(2 / 3)
    cup, cat = result["per_query"]
    assert cup.pop("iou") == pytest.approx(5 / 12)
    assert cup == {"query": "cup", "hit": True, "hit_rate": 0.5, "level": 0, "views": 2}
    assert cat == {"query": "cat", "iou": 1.0, "hit": True, "hit_rate": 1.0, "level": 2, "views": 1}
    assert result["labelled_views"] == 2
    assert result["query_seconds"] >= 0
    assert [(score.query, score.hit) for score in seen] == [("cup", True), ("cat", True), ("cup", False)]
    json.dumps(result, allow_nan=False)


def test_labels_of_another_scene_are_refused(tmp_path):
    write_lerf(tmp_path, "frame_00041", [rectangle("cup", 0, 0, 9, 9)])
    with pytest.raises(InputError, match="frame_00041"):
        evaluate_answers(lambda view, phrases: [], [camera("a")], Benchmark(read_labels(tmp_path)))


def test_iou_of_empty_masks_and_boxes_with_ends():
    empty = np.zeros((4, 4), bool)
    assert iou(empty, empty) == 0
    boxes = np.array([[1.0, 1, 2, 2], [5, 5, 6, 6]])
    assert in_any_box((2, 1), boxes)
    assert in_any_box((5, 6), boxes)
    assert not in_any_box((3, 1), boxes)
    assert not in_any_box((5, 2), boxes)


class TwoViews:
    """As much of a `Scene` as scoring its views needs."""

    def __init__(self, truth):
        self.cameras = [camera("a"), camera("b"), camera("c")]
        self.test = [0, 2]
        self.truth = truth

    def image(self, index):
        return self.truth[index]


def test_views_are_averaged_and_watched():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 256, size=(3, 40, 60, 3), dtype=np.uint8)
    rendered = {name: rng.uniform(-0.2, 1.2, size=(40, 60, 3)).astype(np.float32) for name in "abc"}
    seen: list[ViewScore] = []
    result = evaluate_views(lambda view: rendered[view.name], TwoViews(truth), watch=seen.append)
    expected = [
        -10 * np.log10(np.mean((np.clip(rendered[name], 0, 1) - truth[index] / 255) ** 2))
        for name, index in (("a", 0), ("c", 2))
    ]
    assert result["psnr"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert [score.camera.name for score in seen] == ["a", "c"]
    assert [score.psnr for score in seen] == pytest.approx(expected, abs=1e-5)
    assert seen[1].rendered.dtype == np.uint8
    scene = TwoViews(truth)
    scene.test = []
    assert evaluate_views(lambda view: rendered[view.name], scene) == {}


def test_true_masks_of_the_demo_scene_score_one(tmp_path):
    """The demo's label files, read back, give the exact masks; read out as relevancy they nearly do."""
    write_demo_scene(tmp_path, width=160, height=120, train_views=1, test_views=2, samples=1)
    labels = Benchmark(read_labels(tmp_path / "labels"))

    def exact(view, phrases):
        folder = tmp_path / "labels" / view.name
        masks = [cv2.imread(str(folder / f"{phrase}.png"), cv2.IMREAD_GRAYSCALE) > 0 for phrase in phrases]
        return [FixedAnswer(mask, tuple(np.argwhere(mask)[0][::-1])) for mask in masks]

    def read(view, phrases):
        answers = []
        for answer in exact(view, phrases):
            out = relevancy.read_out(torch.from_numpy(0.3 + 0.6 * answer.relevancy)[None])
            answers.append(FixedAnswer(out.mask.numpy(), out.point, out.level))
        return answers

    cameras = [camera(f"test_{i:03d}", 160, 120) for i in range(2)]
    result = evaluate_answers(exact, cameras, labels)
    assert result["miou"] == result["localization_accuracy"] == 1
    assert len(result["per_query"]) == 7
    assert evaluate_answers(read, cameras, labels)["miou"] > 0.9
