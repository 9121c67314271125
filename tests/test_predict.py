"""Judging a folder of photos: maps, tables and flags are right, whatever lies in the folder."""

import json
from dataclasses import replace

import numpy as np
import pytest
from inspection import ColourDistance, backbone, texture
from judging import QUICK, SPOTS, content, run, table
from PIL import Image

from dictas.detector import image_score, pixel_map
from encoders.errors import InputError


def test_defects_are_found_where_they_are(support, query, tmp_path):
    found = run(support, query, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert list(rows) == [f"{number % 2}/{number}.png" for number in [*range(0, 23, 2), *range(1, 23, 2)]]
    assert [row.path for row in found.rows] == list(rows)
    flagged = {path for path, row in rows.items() if row["anomalous"] == "1"}
    assert {"1/5.png", "1/9.png"} <= flagged
    assert len(flagged) <= 4
    for number, (top, left) in SPOTS.items():
        row = rows[f"1/{number}.png"]
        assert (row["width"], row["height"]) == ("64", "96" if number % 4 == 1 else "64")
        assert abs(int(row["peak_x"]) - (left + 8)) < 10
        assert abs(int(row["peak_y"]) - (top + 8)) < 12


def test_files_agree_with_the_table_and_with_the_detector(support, query, tmp_path):
    out = tmp_path / "out"
    run(support, query, out)
    results = json.loads((out / "results.json").read_text())
    assert results["counts"] == {
        "images": 23,
        "ok": 23,
        "anomalous": results["counts"]["anomalous"],
        "unreadable": 0,
        "left_out": 0,
    }
    assert results["maps"] == "maps/*.png, 16 bit: value = pixel / 65535"
    assert results["support"] == ["0.png", "1.png", "2.png"]
    threshold = results["threshold"]
    assert threshold["method"] == "leave-one-out"
    detector = ColourDistance()
    detector.remember([backbone().batch([texture(number)]) for number in range(3)])
    for path, row in table(out).items():
        image = np.array(Image.open(query / path))
        prepared = backbone().prepare(image)
        expected = pixel_map(detector.maps(backbone().batch([prepared]))[0], prepared.shape[:2], image.shape[:2])
        stored = np.array(Image.open(out / "maps" / f"{row['output']}.png"))
        mask = np.array(Image.open(out / "masks" / f"{row['output']}.png"))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored / 65535, expected, atol=1.6e-5)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).mean() == pytest.approx(float(row["area_fraction"]), abs=1e-6)
        assert mask.any() == (row["anomalous"] == "1")
        np.testing.assert_array_equal(mask[expected >= threshold["pixel"] + 1e-6], 255)
        assert float(row["score"]) == pytest.approx(image_score(expected), abs=2e-6)
        assert Image.open(out / "overlays" / f"{row['output']}.jpg").size == image.shape[1::-1]
    assert image.shape[:2] == mask.shape


def test_other_maps(support, query, tmp_path):
    run(support, query, tmp_path / "png")
    run(support, query, tmp_path / "npz", replace(QUICK, maps="npz"))
    run(support, query, tmp_path / "none", replace(QUICK, maps="none"))
    assert (tmp_path / "npz/results.csv").read_bytes() == (tmp_path / "png/results.csv").read_bytes()
    for path in (tmp_path / "npz" / "maps").rglob("*.npz"):
        relative = path.relative_to(tmp_path / "npz").with_suffix(".png")
        np.testing.assert_allclose(
            np.load(path)["map"], np.array(Image.open(tmp_path / "png" / relative)) / 65535, atol=2e-4, rtol=1e-3
        )
    assert not (tmp_path / "none" / "maps").exists()
    with pytest.raises(InputError, match="--maps"):
        run(support, query, tmp_path / "other", replace(QUICK, maps="tiff"))


@pytest.mark.parametrize("options", [{"workers": 2}, {"tile": 48}, {"tile": 48, "workers": 1}, {"threshold": 0.3}])
def test_a_second_call_changes_nothing(support, query, tmp_path, options):
    options = replace(QUICK, **options)
    run(support, query, tmp_path / "out", options)
    before = content(tmp_path / "out")
    detector = ColourDistance()
    again = run(support, query, tmp_path / "out", options, detector)
    assert detector.remembered == 0
    assert content(tmp_path / "out") == before
    assert again.results["counts"]["images"] == 23
