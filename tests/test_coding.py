"""Signed codes, AbsTopK and the ways to fit a scene, against numpy and features written out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import driver
import numpy as np
import pytest
import torch

from benchmarks import coding_ablation as ablation
from encoders.errors import InputError
from splat.codes import LanguageField, densify
from splat.coding import CODINGS, abs_topk, code
from splat.fit_language import LanguageConfig
from splat.gaussians import load_ply
from splat.rasterize import rasterize_features, rasterize_relevancy
from splat.scene import load_cameras, stack

ROWS, ATOMS, DIM = 400, 24, 16


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    random = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(random, dim=-1).to(dtype)


@pytest.mark.parametrize("nonzeros", [1, 3, 8])
def test_abs_topk_takes_the_strongest_of_either_sign(nonzeros: int) -> None:
    vectors, atoms = unit(ROWS, DIM), unit(ATOMS, DIM, seed=1)
    indices, weights = abs_topk(vectors @ atoms.T, atoms @ atoms.T, nonzeros, chunk=37)
    assert (weights < 0).any()
    for vector, chosen, weight in zip(vectors.numpy(), indices.numpy(), weights.numpy(), strict=True):
        strongest = np.argsort(-np.abs(atoms.numpy() @ vector))[:nonzeros]
        assert set(chosen) == set(strongest)
        wanted, *_ = np.linalg.lstsq(atoms.numpy()[chosen].T, vector, rcond=None)
        np.testing.assert_allclose(weight, wanted, atol=1e-4)


def test_what_correlates_with_nothing_has_no_code() -> None:
    atoms = torch.eye(6, dtype=torch.float64)[:4]
    vectors = torch.eye(6, dtype=torch.float64)[[1, 5]] * torch.tensor([[-2.0], [1.0]])
    indices, weights = abs_topk(vectors @ atoms.T, atoms @ atoms.T, 2)
    np.testing.assert_allclose(densify(indices, weights, 4).numpy(), [[0, -2, 0, 0], [0, 0, 0, 0]], atol=1e-5)
    with pytest.raises(ValueError, match="nonzeros is 5"):
        abs_topk(vectors @ atoms.T, atoms @ atoms.T, 5)


def test_a_second_sign_is_worth_atoms() -> None:
    """Vectors along atoms and against them: signed codes need one atom where others need two."""
    atoms = unit(ATOMS, 3 * DIM)
    signs = torch.where(torch.arange(ROWS) % 2 == 0, 1.0, -1.0).double()
    vectors = atoms[torch.arange(ROWS) % ATOMS] * signs[:, None]
    errors = {}
    for coding in CODINGS:
        indices, weights = code(vectors @ atoms.T, atoms @ atoms.T, 1, coding)
        errors[coding] = float((vectors - densify(indices, weights, ATOMS) @ atoms).norm(dim=1).mean())
    assert errors["signed"] < 1e-4
    assert errors["abs-topk"] < 1e-4
    assert errors["nonnegative"] > 0.3


def test_signed_codes_are_asked_exactly(tiny_run: Path) -> None:
    """Relevancy in code space is that of the features, written out and splatted, with 64 bits after it."""
    gaussians, (cameras, _) = load_ply(tiny_run / "gaussians.ply"), load_cameras(tiny_run / "cameras.json")
    random = torch.Generator().manual_seed(3)
    indices = torch.stack([torch.randperm(ATOMS, generator=random)[:4] for _ in range(3 * len(gaussians))])
    weights = torch.randn(len(gaussians), 3, 4, generator=random)
    atoms = unit(3, ATOMS, DIM, seed=8, dtype=torch.float32)
    field = LanguageField(atoms, indices.reshape(-1, 3, 4).to(torch.uint8), weights, "test")
    texts = unit(3, DIM, seed=9, dtype=torch.float32)
    viewmats, Ks = stack(cameras[:1])
    view = (viewmats, Ks, cameras[0].width, cameras[0].height)
    scores, gram = field.scores(texts), field.gram()
    maps, alphas = rasterize_relevancy(*gaussians.geometry, field.indices, field.weights, scores, gram, 1, *view)
    features, _ = rasterize_features(*gaussians.geometry, field.decode().flatten(1), *view)
    dense = features[0].double().unflatten(-1, (3, DIM))
    similar = torch.nn.functional.normalize(dense, dim=-1) @ texts.double().T
    wanted = torch.sigmoid(10 * (similar[..., 0] - similar[..., 1:].amax(-1)))
    solid = (alphas[0, ..., 0] > 0.5) & (dense.norm(dim=-1).amin(-1) > 1e-3)
    assert solid.float().mean() > 0.5
    difference = (maps[0, 0].movedim(0, -1).double() - wanted).abs()[solid]
    assert difference.max() < 1e-4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coding": "dense"}, "--coding"),
        ({"solver": "sgd", "coding": "signed"}, "needs --solver lift"),
        ({"dictionary": "random"}, "--dictionary"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        LanguageConfig(**options)  # type: ignore[arg-type]


def test_a_scene_is_coded_in_every_way(
    dictsplat: Callable[..., tuple[int, str, str]], tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    # A run of an earlier version does not say how it was coded.
    for key in ("coding", "dictionary"):
        del record["stages"]["language"]["inputs"][key], record["config"][key]
    (run / "run.json").write_text(json.dumps(record))
    before = (run / "language.safetensors").stat().st_mtime_ns
    assert dictsplat("train", "--out", run, "--resume")[0] == 0
    assert (run / "language.safetensors").stat().st_mtime_ns == before
    scores = {}
    for options in (
        ("--coding", "signed"),
        ("--coding", "abs-topk"),
        ("--coding", "nonnegative", "--dictionary", "online"),
    ):
        code, _, err = dictsplat("train", "--out", run, "--resume", *options)
        assert code == 0, err
        field = LanguageField.load(run / "language.safetensors")
        assert bool((field.weights < 0).any()) == (options[1] != "nonnegative")
        scores[options] = json.loads((run / "metrics.json").read_text())["miou"]
    assert min(scores.values()) > json.loads((tiny_run / "metrics.json").read_text())["miou"] - 0.1


def test_a_training_that_is_told_nothing_starts_from_kmeans(
    dictsplat: Callable[..., tuple[int, str, str]], tiny_scene: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """`tiny_run` is told to; what it says and what it gets is the same."""
    options = ("--encoder", "colour", "--gaussians", tiny_run / "gaussians.ply")
    code, _, err = dictsplat("train", tiny_scene, "--out", tmp_path / "run", *options)
    assert code == 0, err
    told, ours = (json.loads((run / "run.json").read_text()) for run in (tiny_run, tmp_path / "run"))
    assert (told["config"]["dictionary"], ours["config"]["dictionary"]) == ("kmeans", None)
    assert ours["stages"]["language"]["inputs"]["dictionary"] == "kmeans"
    assert ours["stages"]["language"]["stats"]["loss"] == told["stages"]["language"]["stats"]["loss"]


def test_the_ablation_measures_every_way(
    tiny_scene: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver.install(monkeypatch.setattr)
    monkeypatch.setattr(ablation, "PHRASE", "red")
    options = [
        "--scene",
        str(tiny_scene),
        "--json",
        str(tmp_path / "rows.json"),
        "--markdown",
        str(tmp_path / "rows.md"),
    ]
    assert ablation.main([str(tiny_run), *options, "--sgd", "3"]) == 0
    assert (tmp_path / "rows.md").read_text() == capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    ways = [(row["coding"], row["dictionary"], row["solver"]) for row in rows]
    lifted = [(coding, start, "lift") for coding in CODINGS for start in ("kmeans", "online")]
    assert ways == [*lifted, ("nonnegative", "kmeans", "sgd")]
    ours, metrics = rows[0], json.loads((tiny_run / "metrics.json").read_text())
    assert ours["mious"][0] == pytest.approx(metrics["miou"], abs=1e-6)
    assert ours["located"] == pytest.approx(metrics["localization_accuracy"], abs=1e-6)
    assert ours["bytes"] == (tiny_run / "language.safetensors").stat().st_size
    record = json.loads((tiny_run / "run.json").read_text())
    assert ours["error"] == pytest.approx(record["stages"]["language"]["stats"]["loss"])
    assert [len(row["mious"]) for row in rows] == [1] * len(rows)
    assert rows[0]["query"] == 1
    assert [row["milliseconds"] / rows[0]["milliseconds"] for row in rows] == pytest.approx([r["query"] for r in rows])
    assert [list(row["ious"]) for row in rows] == [[one["query"] for one in metrics["per_query"]]] * len(rows)
    assert list(ours["ious"].values()) == pytest.approx([one["iou"] for one in metrics["per_query"]], abs=1e-6)
    assert all(row["query"] > 0 and 0 < row["error"] < 1 for row in rows)
