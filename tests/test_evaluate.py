"""Scores of answers: averages over views, sizes, lenses, and what counts as not found."""

import json
import shutil
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from label_files import block, camera, radial, rectangle, write_lerf, write_masks

import splat.score
from encoders.errors import InputError
from encoders.files import write_png
from splat import relevancy
from splat.evaluate import evaluate_answers, evaluate_language, in_any_box, iou
from splat.lerf_labels import read_labels
from splat.protocols import Benchmark, read_benchmark
from splat.scene import load_scene
from splat.scene.demo import write_demo_scene


@dataclass
class FixedAnswer:
    mask: np.ndarray
    point: tuple[int, int]
    level: int = 1

    @property
    def relevancy(self):
        return self.mask.astype(np.float32)


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
        lambda view, phrases, size: [answers[view.name, phrase] for phrase in phrases],
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
    assert result["protocol"] == "lerf"
    assert result["query_seconds"] >= 0
    assert [(score.query, score.hit) for score in seen] == [("cup", True), ("cat", True), ("cup", False)]
    json.dumps(result, allow_nan=False)


def test_labels_of_another_scene_are_refused(tmp_path):
    write_lerf(tmp_path, "frame_00041", [rectangle("cup", 0, 0, 9, 9)])
    with pytest.raises(InputError, match="frame_00041"):
        evaluate_answers(lambda view, phrases, size: [], [camera("a")], Benchmark(read_labels(tmp_path)))


def found(mask, point, level=2):
    return lambda view, phrases, size: [FixedAnswer(mask, point, level) for _ in phrases]


def test_outlines_are_scored_at_the_size_they_were_drawn_at(tmp_path):
    write_lerf(tmp_path, "a", [rectangle("cup", 10, 10, 19, 19)])
    seen = []
    sizes = []

    def answer(view, phrases, size):
        sizes.append(((view.width, view.height), size))
        return [FixedAnswer(block(10, 10, 19, 19), (19, 19))]

    result = evaluate_answers(answer, [camera("a", 15, 10)], Benchmark(read_labels(tmp_path)), watch=seen.append)
    assert sizes == [((15, 10), (60, 40))]
    assert (result["miou"], result["localization_accuracy"]) == (1, 1)
    # Whoever draws the answer over the view needs a view of that size.
    assert (seen[0].camera.width, seen[0].camera.height) == (60, 40)
    np.testing.assert_allclose(seen[0].camera.K[:2], camera("a").K[:2] * 4)


def test_masks_are_scored_at_the_size_of_the_view(tmp_path):
    folder = write_masks(tmp_path, {"a": {"cup": block(20, 20, 39, 39)}})
    answer = found(block(10, 10, 19, 19, 30, 20), (19, 19))
    result = evaluate_answers(answer, [camera("a", 30, 20)], read_benchmark(folder))
    assert (result["miou"], result["localization_accuracy"]) == (1, 1)


def test_what_is_smaller_than_a_pixel_is_not_found(tmp_path):
    """An answer to the other class is right; the speck counts as 0, and would leave a mean of 1 if it did not."""
    views = {"a": {"cup": block(20, 20, 39, 39), "speck": block(1, 1, 1, 1)}}
    folder = write_masks(tmp_path, views)
    answer = found(block(5, 5, 9, 9, 15, 10), (6, 6))
    result = evaluate_answers(answer, [camera("a", 15, 10)], read_benchmark(folder))
    assert (result["miou"], result["localization_accuracy"]) == (0.5, 0.5)
    assert [(one["query"], one["iou"], one["hit"]) for one in result["per_query"]] == [
        ("cup", 1.0, True), ("speck", 0.0, False),
    ]  # fmt: skip


def test_what_is_not_in_the_view_is_not_scored(tmp_path):
    """A class without a mask, and an outline outside the picture: there is nothing to find."""
    views = {"a": {"cup": block(20, 20, 39, 39)}, "b": {"cat": block(0, 0, 9, 9)}}
    folder = write_masks(tmp_path / "masks", views)
    answer = found(block(20, 20, 39, 39), (25, 25))
    result = evaluate_answers(answer, [camera("a")], read_benchmark(folder))
    assert [(one["query"], one["views"]) for one in result["per_query"]] == [("cup", 1)]
    write_lerf(tmp_path / "json", "a", [rectangle("cup", 100, 100, 120, 120)])
    with pytest.raises(InputError, match="show nothing"):
        evaluate_answers(answer, [camera("a")], read_benchmark(tmp_path / "json"))


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["masks", "outlines"])
def test_a_photo_that_was_straightened_scores_as_it_shows_the_object(tmp_path, kind, scale):
    """The photo is white where the object is, so the view itself is the right answer."""
    width, height = 400, 300
    drawn = block(40, 30, 89, 79, width, height)
    scene = tmp_path / "scene"
    for name in ("a", "b"):
        write_png(scene / "images" / f"{name}.png", np.where(drawn, 255, 0).astype(np.uint8)[..., None].repeat(3, 2))
    (scene / "sparse").mkdir()
    parameters = " ".join(str(value) for value in radial(0.1).params)
    (scene / "sparse" / "cameras.txt").write_text(f"1 SIMPLE_RADIAL {width} {height} {parameters}\n")
    poses = "".join(f"{i} 1 0 0 0 {0.1 * i} 0 0 1 {name}.png\n\n" for i, name in ((1, "a"), (2, "b")))
    (scene / "sparse" / "images.txt").write_text(poses)
    (scene / "sparse" / "points3D.txt").write_text("1 0 0 3 255 255 255 1\n")
    if kind == "masks":
        folder = write_masks(tmp_path / "labels", {"a": {"square": drawn}})
    else:
        folder = tmp_path / "labels"
        write_lerf(folder, "a", [rectangle("square", 40, 30, 89, 79)], width, height)
    loaded = load_scene(scene, scale, with_points=False)
    assert [lens.model for lens in loaded.lenses] == ["SIMPLE_RADIAL"] * 2

    def answer(view, phrases, size):
        shown = cv2.resize(loaded.image(0)[..., 0], size, interpolation=cv2.INTER_LINEAR) > 127
        y, x = np.argwhere(shown)[0]
        return [FixedAnswer(shown, (int(x) + 1, int(y) + 1))]

    lenses = {view.name: lens for view, lens in zip(loaded.cameras, loaded.lenses, strict=True)}
    result = evaluate_answers(answer, loaded.cameras, read_benchmark(folder), lenses=lenses)
    assert result["miou"] > 0.98
    assert result["localization_accuracy"] == 1
    unaware = evaluate_answers(answer, loaded.cameras, read_benchmark(folder))
    assert unaware["miou"] < 0.9


def test_a_run_is_scored_through_the_lenses_of_its_photos(dictsplat, tiny_run, tmp_path, monkeypatch):
    given = {}

    def watched(*arguments):
        given.update(arguments[-1])
        return evaluate_language(*arguments)

    monkeypatch.setattr(splat.score, "evaluate_language", watched)
    code, _, err = dictsplat("eval", shutil.copytree(tiny_run, tmp_path / "run"), "--json")
    assert code == 0, err
    assert len(given) == 10
    assert {(lens.model, lens.width, lens.height) for lens in given.values()} == {("OPENCV", 96, 72)}


def test_a_report_shows_answers_at_the_size_of_the_labels(dictsplat, tiny_run, tmp_path):
    """Labels of another size than the views: what is drawn under an answer has to have the answer's size."""
    write_lerf(tmp_path / "labels", "test_000", [rectangle("red", 30, 30, 89, 79)], 144, 108)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "report.html").unlink()
    code, out, err = dictsplat("eval", run, "--labels", tmp_path / "labels", "--json")
    assert code == 0, err
    assert json.loads(out)["labelled_views"] == 1
    assert (run / "report.html").is_file()


def test_iou_of_empty_masks_and_boxes_with_ends():
    empty = np.zeros((4, 4), bool)
    assert iou(empty, empty) == 0
    boxes = np.array([[1.0, 1, 2, 2], [5, 5, 6, 6]])
    assert in_any_box((2, 1), boxes)
    assert in_any_box((5, 6), boxes)
    assert not in_any_box((3, 1), boxes)
    assert not in_any_box((5, 2), boxes)


def test_true_masks_of_the_demo_scene_score_one(tmp_path):
    """The demo's label files, read back, give the exact masks; read out as relevancy they nearly do."""
    write_demo_scene(tmp_path, width=160, height=120, train_views=1, test_views=2, samples=1)
    labels = Benchmark(read_labels(tmp_path / "labels"))

    def exact(view, phrases, size):
        folder = tmp_path / "labels" / view.name
        masks = [cv2.imread(str(folder / f"{phrase}.png"), cv2.IMREAD_GRAYSCALE) > 0 for phrase in phrases]
        return [FixedAnswer(mask, tuple(np.argwhere(mask)[0][::-1])) for mask in masks]

    def read(view, phrases, size):
        answers = []
        for answer in exact(view, phrases, size):
            out = relevancy.read_out(torch.from_numpy(0.3 + 0.6 * answer.relevancy)[None])
            answers.append(FixedAnswer(out.mask.numpy(), out.point, out.level))
        return answers

    cameras = [camera(f"test_{i:03d}", 160, 120) for i in range(2)]
    result = evaluate_answers(exact, cameras, labels)
    assert result["miou"] == result["localization_accuracy"] == 1
    assert len(result["per_query"]) == 7
    assert evaluate_answers(read, cameras, labels)["miou"] > 0.9
