"""`anomaly eval` on a small drawn data set, against metrics that scikit-learn computes from maps made anew here."""

import json
from pathlib import Path

import cv2
import inspection
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from app.cli import main
from dictas import trial
from dictas.baselines import BASELINES
from dictas.datasets import InspectionClass, Sample, draw_support, read_dataset
from dictas.detector import BLUR, pixel_map
from dictas.evaluate import EvaluateOptions, evaluate
from dictas.metrics import aupro
from dictas.summary import METRICS, summarise
from dictas.tiles import Tiling, judge_image
from dictas.trial import compared_shape, shrunk
from encoders.errors import InputError
from encoders.files import read_image

QUICK = EvaluateOptions(shots=2, seeds=2, baselines=("nearest_neighbour",))
SPOTS = {"spot": (20, 30), "smear": (4, 40)}


def noisy(seed: int, spot: tuple[int, int] | None = None) -> np.ndarray:
    """As `inspection.texture`, with a defect that is hard to tell from the noise, so that no metric is perfect."""
    image = inspection.texture(seed, 72, 64)
    rng = np.random.default_rng(1000 + seed)
    blocks = np.kron(rng.normal(0, 14, (9, 8, 1)), np.ones((8, 8, 1)))
    if spot is not None:
        blocks[spot[0] : spot[0] + 16, spot[1] : spot[1] + 16] += 22
    return np.clip(image + blocks, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with four normal images to draw from and two kinds of defects each."""
    root = tmp_path_factory.mktemp("parts") / "parts"
    for number, name in enumerate(("bolt", "cap")):
        for index in range(4):
            inspection.save(root / name / "train/good" / f"{index}.png", noisy(100 * number + index))
            inspection.save(root / name / "test/good" / f"{index}.png", noisy(100 * number + 20 + index))
        for kind, place in SPOTS.items():
            mask = np.zeros((72, 64), np.uint8)
            mask[place[0] : place[0] + 16, place[1] : place[1] + 16] = 255
            for index in range(2):
                seed = 100 * number + 40 + index + 10 * len(kind)
                inspection.save(root / name / "test" / kind / f"{index}.png", noisy(seed, place))
                inspection.save(root / name / "ground_truth" / kind / f"{index}_mask.png", mask)
    return root


class ColourDistance(inspection.ColourDistance):
    """Without the rounding of a distance that is computed through products."""

    def maps(self, query):
        distance = (query.tokens[0][:, :, None] - self.known).norm(dim=-1).amin(dim=2) / 3**0.5
        return (distance * self.gain.detach()).reshape(len(distance), *query.grid)


def run(dataset: Path, out: Path, options: EvaluateOptions = QUICK, report=lambda *_: None):
    return evaluate(read_dataset(dataset), inspection.backbone(), ColourDistance(), out, options, report)


def without_times(metrics):
    """The numbers that two runs must share."""
    if isinstance(metrics, dict):
        return {key: without_times(value) for key, value in metrics.items() if not key.endswith("images_per_second")}
    return metrics


def slow_map(image: np.ndarray, support: list[np.ndarray]) -> np.ndarray:
    """Mean colours of blocks, distance to the nearest of the support, enlarged and smoothed: all written out."""

    def colours(picture: np.ndarray) -> np.ndarray:
        shown = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
        return shown.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) / 255

    known = np.concatenate([colours(picture).reshape(-1, 3) for picture in support])
    distances = np.linalg.norm(colours(image)[:, :, None] - known, axis=-1).min(axis=-1) / 3**0.5
    large = torch.nn.functional.interpolate(torch.from_numpy(distances)[None, None], (64, 64), mode="bilinear")[0, 0]
    smooth = cv2.GaussianBlur(large.numpy().astype(np.float32), (0, 0), BLUR)
    return cv2.resize(smooth, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def slow_metrics(item: InspectionClass, support: list[np.ndarray], kinds: list[str]) -> dict[str, float]:
    samples = [sample for sample in item.test if sample.kind in kinds]
    maps = [slow_map(read_image(sample.path), support) for sample in samples]
    masks = [
        np.zeros((72, 64), bool) if sample.mask is None else np.asarray(Image.open(sample.mask)) > 0
        for sample in samples
    ]
    scores, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    image_scores, labels = (
        [np.sort(m, axis=None)[-round(m.size * 0.005) :].mean() for m in maps],
        [sample.kind != "good" for sample in samples],
    )
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {
        "pixel_auroc": roc_auc_score(truth, scores),
        "pixel_ap": average_precision_score(truth, scores),
        "pixel_f1_max": (2 * precision * recall / (precision + recall + 1e-12)).max(),
        "aupro": aupro(maps, masks),
        "image_auroc": roc_auc_score(labels, image_scores),
        "image_ap": average_precision_score(labels, image_scores),
    }


def test_numbers_are_those_of_an_independent_computation(dataset: Path, tmp_path: Path) -> None:
    metrics = run(dataset, tmp_path)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    per_draw = []
    for item in read_dataset(dataset):
        draws = []
        for seed in range(2):
            support = [read_image(path) for path in draw_support(item, 2, seed)]
            draws.append(slow_metrics(item, support, ["good", "spot", "smear"]))
            for kind in SPOTS:
                draws[-1] |= {f"{kind} {k}": v for k, v in slow_metrics(item, support, ["good", kind]).items()}
        per_draw.append(draws)
        found = metrics["per_class"][item.name]
        assert found["images"] == 8
        for name in METRICS:
            values = [draw[name] for draw in draws]
            assert 0.0 < found[name] < 1.0, name
            assert found[name] == pytest.approx(np.mean(values), abs=1e-5)
            assert found["std"][name] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
            for kind in SPOTS:
                expected = np.mean([draw[f"{kind} {name}"] for draw in draws])
                assert found["per_kind"][kind][name] == pytest.approx(expected, abs=1e-5)
    for name in METRICS:
        table = np.array([[draw[name] for draw in draws] for draws in per_draw])  # [class, draw]
        assert metrics[name] == pytest.approx(table.mean(), abs=1e-5)
        assert metrics["std"][name] == pytest.approx(table.mean(axis=0).std(ddof=1), abs=1e-5)
    baseline = metrics["baselines"]["nearest_neighbour"]
    assert set(baseline) == {*METRICS, "std", "images_per_second", "per_class"}
    assert set(baseline["per_class"]) == {"bolt", "cap"}
    assert 0 < metrics["images_per_second"] < metrics["backbone_images_per_second"]


def test_one_draw_has_no_deviation_and_examples_are_drawn(dataset: Path, tmp_path: Path) -> None:
    metrics = run(dataset, tmp_path, EvaluateOptions(shots=1, baselines=()))
    assert set(metrics["std"].values()) == {None}
    assert metrics["baselines"] == {}
    for name in ("bolt", "cap"):
        sheet = read_image(tmp_path / "examples" / f"{name}.png")
        assert sheet.shape[1] == 3 * 256 + 2 * 4
        # All four defects and a false alarm.
        assert sheet.shape[0] == 22 + 5 * (256 + 4)
        assert (np.abs(sheet.astype(int) - (80, 255, 80)).sum(axis=2) < 30).any()


def test_each_image_is_seen_once_by_everyone(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = inspection.Blocks.patch_tokens

    def patch_tokens(self, images, layers):
        seen.append(len(images))
        return real(self, images, layers)

    monkeypatch.setattr(inspection.Blocks, "patch_tokens", patch_tokens)
    names = tuple(name for name in BASELINES if name != "text_only")
    metrics = run(dataset / "cap", tmp_path, EvaluateOptions(shots=2, baselines=names))
    assert set(metrics["baselines"]) == set(names)
    assert sum(seen) == 2 + 8


def test_an_encoder_without_words_skips_the_baseline_of_words(dataset: Path, tmp_path: Path) -> None:
    metrics = run(dataset / "cap", tmp_path, EvaluateOptions(shots=2, baselines=("text_only", "patchcore")))
    assert set(metrics["baselines"]) == {"patchcore"}
    assert "no text tower" in metrics["skipped"]["text_only"]


def test_after_a_stop_the_rest_is_computed_and_the_numbers_are_the_same(dataset: Path, tmp_path: Path) -> None:
    def stop(done: int, _total: int, _message: str) -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "stopped", report=stop)
    kept = sorted((tmp_path / "stopped/partial").iterdir())
    assert [path.name for path in kept] == ["bolt-0.json", "bolt-1.json"]
    assert not (tmp_path / "stopped/metrics.json").exists()
    kept[1].write_text(kept[1].read_text()[:99])  # as after a power cut
    computed: list[str] = []
    again = run(dataset, tmp_path / "stopped", report=lambda done, total, message: computed.append(message))
    assert without_times(again) == without_times(run(dataset, tmp_path / "unbroken"))
    # One line where a draw begins, and more where it had to be computed.
    assert computed.count("bolt, draw 1 of 2") == 1
    assert computed.count("bolt, draw 2 of 2") > 1


def test_results_of_something_else_are_not_used(dataset: Path, tmp_path: Path) -> None:
    before = run(dataset, tmp_path)
    backbone = inspection.backbone()
    classes = read_dataset(dataset)

    def worked(backbone, detector, options, classes=classes) -> int:
        lines: list[str] = []
        evaluate(classes, backbone, detector, tmp_path, options, lambda _d, _t, message: lines.append(message))
        return len(lines)

    idle = worked(backbone, ColourDistance(), QUICK)
    assert idle == 2 * 2 + 1
    assert worked(backbone, ColourDistance(0.5), QUICK) > idle
    assert worked(backbone, ColourDistance(0.5), QUICK) == idle
    assert worked(backbone, ColourDistance(), EvaluateOptions(2, 2, ("patchcore",))) > idle
    # More draws keep those there are.
    assert without_times(run(dataset, tmp_path)) == without_times(before)
    lines: list[str] = []
    run(dataset, tmp_path, EvaluateOptions(2, 3, QUICK.baselines), lambda _d, _t, message: lines.append(message))
    assert lines.count("cap, draw 2 of 3") == 1
    assert lines.count("cap, draw 3 of 3") > 1


def test_a_changed_image_is_judged_again(dataset: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(dataset / "cap", mine)
    before = run(mine, tmp_path / "out")
    inspection.save(mine / "test/good/0.png", noisy(7, (30, 30)))
    after = run(mine, tmp_path / "out")
    assert after["image_auroc"] != before["image_auroc"]


def test_images_that_cannot_be_read_are_left_out(dataset: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(dataset / "cap", mine)
    (mine / "test/good/1.png").write_bytes(b"no picture")
    whole = (mine / "test/spot/0.png").read_bytes()
    (mine / "test/spot/0.png").write_bytes(whole[: len(whole) // 2])
    metrics = run(mine, tmp_path / "out")
    assert [(Path(e["path"]).name, e["kind"]) for e in metrics["unreadable"]] == [("1.png", "good"), ("0.png", "spot")]
    assert all(entry["class"] == "mine" and entry["error"].endswith(".") for entry in metrics["unreadable"])
    assert metrics["per_class"]["mine"]["images"] == 6


def test_without_masks_only_images_are_measured(dataset: Path, tmp_path: Path) -> None:
    item = read_dataset(dataset / "cap")[0]
    bare = InspectionClass(item.name, item.normal, tuple(Sample(s.path, s.kind, None) for s in item.test))
    metrics = evaluate([bare], inspection.backbone(), ColourDistance(), tmp_path, QUICK)
    assert metrics["pixel_ap"] is metrics["aupro"] is None
    assert 0 < metrics["image_auroc"] <= 1


def test_a_mask_of_another_size_is_an_input_error(dataset: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(dataset / "cap", mine)
    inspection.save(mine / "ground_truth/spot/0_mask.png", np.full((9, 9), 255, np.uint8))
    with pytest.raises(InputError, match=r"0_mask\.png has 9x9 pixels"):
        run(mine, tmp_path / "out")


def test_tiles_give_the_map_of_predict(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = []
    real = trial.run_trial

    def run_trial(*arguments):
        trials.append(real(*arguments))
        return trials[-1]

    monkeypatch.setattr("dictas.evaluate.run_trial", run_trial)
    options = EvaluateOptions(shots=2, baselines=("patchcore",), tile=40, batch=3)
    run(dataset / "cap", tmp_path, options)
    judged = trials[0].judged
    assert len(judged[0].boxes) == 6
    for found in judged:
        expected = judge_image(
            inspection.backbone(), trials[0].judge.detector, read_image(found.sample.path), Tiling(40), 5
        )
        np.testing.assert_allclose(trials[0].map_of(found, "colour"), expected.map, atol=1e-6)
        assert trials[0].judgement(found, "colour").score == pytest.approx(expected.score, abs=1e-6)
        assert trials[0].judgement(found, "patchcore").score == found.scores["patchcore"]
        assert found.scores["patchcore"] > 0


def test_only_baselines_need_room_for_the_support(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that condenses what it sees goes through where baselines are refused."""

    class Condensing(ColourDistance):
        limit = 0

        def entries(self, support):
            tokens = torch.cat([batch.tokens[0].flatten(0, 1) for batch in support])
            return [(tokens, tokens)]

        def joined(self, parts, limit):
            return [tuple(torch.cat([part[0][side] for part in parts]) for side in (0, 1))]

        def remember_entries(self, entries):
            self.known = entries[0][0]

    classes = read_dataset(dataset / "cap")
    expected = run(dataset / "cap", tmp_path / "whole", EvaluateOptions(shots=2, baselines=()))
    monkeypatch.setattr(trial, "MOST_SUPPORT_BYTES", 1000)
    alone = EvaluateOptions(shots=2, baselines=())
    found = evaluate(classes, inspection.backbone(), Condensing(), tmp_path / "alone", alone)
    assert found["pixel_ap"] == pytest.approx(expected["pixel_ap"])
    with pytest.raises(InputError, match="2 support images; use --baselines none"):
        evaluate(classes, inspection.backbone(), Condensing(), tmp_path / "all", QUICK)


def test_large_images_are_compared_at_640(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared_shape(640, 480) == (640, 480)
    assert compared_shape(1024, 2048) == (320, 640)
    assert compared_shape(5000, 3) == (640, 1)
    values = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    assert pixel_map(values, (64, 64), compared_shape(1024, 1024)).shape == (640, 640)


def test_thin_cracks_survive_shrinking() -> None:
    mask = np.zeros((1280, 900), bool)
    cv2_line = np.zeros(mask.shape, np.uint8)
    cv2.line(cv2_line, (3, 5), (880, 1270), 1, 1)
    mask |= cv2_line.astype(bool)
    small = shrunk(mask)
    assert small.shape == (640, 450)
    np.testing.assert_array_equal(small, mask.reshape(640, 2, 450, 2).any(axis=(1, 3)))
    assert cv2.connectedComponents(small.astype(np.uint8), connectivity=8)[0] == 2
    one = np.zeros((1000, 777), bool)
    one[501, 333] = True
    assert 1 <= shrunk(one).sum() <= 4
    assert shrunk(small) is small


def test_none_is_left_out_of_means() -> None:
    def draw(value, **more):
        return {**dict.fromkeys((*METRICS, "f1_threshold"), value), "images": 4, "seconds": 2.0, "per_kind": {}, **more}

    found = summarise({"a": [draw(0.2), draw(0.4)], "b": [draw(None), draw(0.8, seconds=0.0)]})
    assert found["pixel_ap"] == pytest.approx((0.3 + 0.8) / 2)
    assert found["std"]["pixel_ap"] == pytest.approx(np.std([0.2, 0.6], ddof=1))
    assert found["per_class"]["b"]["std"]["pixel_ap"] is None
    assert found["images_per_second"] == pytest.approx(16 / 6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"baselines": ("knn",)}, "no baseline 'knn'"), ({"seeds": 0}, "--seeds is 0"), ({"workers": -1}, "--workers")],
)
def test_options_that_make_no_sense(options, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        EvaluateOptions(**options)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Run `dictsplat anomaly eval` here: (status, stdout, stderr)."""
    import dictas.checkpoint

    monkeypatch.setattr(dictas.checkpoint, "load_detector", lambda *_a, **_o: (inspection.backbone(), ColourDistance()))

    def call(*arguments: object):
        with pytest.raises(SystemExit) as stop:
            main(["anomaly", "eval", *map(str, arguments)])
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


def test_the_command(command, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, said, _ = command(dataset, "--out", out, "--shots", 2, "--seeds", 2, "--workers", 0)
    assert status == 0
    metrics = json.loads((out / "metrics.json").read_text())
    written = (out / "metrics.md").read_text()
    assert "Mean of 2 classes, 2-shot, mean of 2 draws" in written
    for name in ("colour", "nearest_neighbour", "patchcore", "untrained_lookup"):
        assert name in said
        assert f"| {name} |" in written
    row = next(line for line in written.splitlines() if line.startswith("| colour |"))
    assert f"| {metrics['pixel_auroc']:.3f} ± {metrics['std']['pixel_auroc']:.3f} |" in row
    assert "text_only was left out" in written
    # Kept results serve a part of the classes too; JSON alone goes to stdout.
    status, said, _ = command(
        dataset, "--out", out, "--shots", 2, "--seeds", 2, "--workers", 0, "--classes", "cap", "--json"
    )
    assert status == 0
    assert without_times(json.loads(said)["per_class"]) == {"cap": without_times(metrics["per_class"]["cap"])}


def test_the_command_says_what_is_wrong(command, dataset: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        status, _, said = command(*arguments, "--out", tmp_path / "out", "--workers", 0)
        assert status == 2
        assert len(said.strip().splitlines()) == 1
        return said

    assert "no class 'nut'" in refused(dataset, "--classes", "cap,nut")
    assert "no baseline 'knn'" in refused(dataset, "--baselines", "knn")
    assert "4 normal images" in refused(dataset, "--shots", 5)
    assert "no folder" in refused(tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_1_if_images_were_unreadable(command, dataset: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(dataset / "cap", mine)
    (mine / "test/good/1.png").write_bytes(b"no picture")
    status, _, said = command(mine, "--out", tmp_path / "out", "--shots", 2, "--baselines", "none", "--workers", 0)
    assert status == 1
    assert "1 test images could not be read" in said
    assert (tmp_path / "out/metrics.json").exists()
