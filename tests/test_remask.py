"""Results under another threshold are those that a run with it would have written."""

import numpy as np
import pytest

from dictas.outputs import UNREADABLE, Row, Writer
from dictas.remask import flagged, measured, rewrite, snapped, stored_map
from dictas.thresholds import LEVELS, fixed
from dictas.tiles import Judgement
from encoders.errors import InputError
from encoders.files import read_image

PHOTO = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def judged(run, seed: int) -> tuple[Row, np.ndarray]:
    """A photo's row and map, written with a threshold of 0.5."""
    values = np.random.default_rng(seed).random(PHOTO.shape[:2], dtype=np.float32) ** 2
    row = Writer(run, fixed(0.5)).write(Row("a.png", output="a"), PHOTO, Judgement(values, float(values.max())))
    return row, values


@pytest.mark.parametrize("value", [0.0, 0.02, 0.123456, 0.5, 0.9, 1.0])
def test_files_are_those_of_a_run_with_that_threshold(tmp_path, value):
    row, values = judged(tmp_path / "run", 3)
    threshold = snapped(value)
    assert threshold.pixel == threshold.image == pytest.approx(value, abs=0.5 / LEVELS)
    direct = Writer(tmp_path / "direct", threshold).write(row, PHOTO, Judgement(values, row.score))
    again = rewrite(tmp_path / "run", row, PHOTO, threshold, tmp_path / "again")
    assert again == direct
    masks = [(tmp_path / place / "masks/a.png").read_bytes() for place in ("direct", "again")]
    assert masks[0] == masks[1]
    overlays = [read_image(tmp_path / place / "overlays/a.jpg").astype(int) for place in ("direct", "again")]
    assert np.abs(overlays[0] - overlays[1]).mean() < 0.1
    assert not (tmp_path / "again" / "maps").exists()


def test_no_pixel_changes_sides_between_map_and_file(tmp_path):
    row, values = judged(tmp_path / "run", 4)
    stored = stored_map(tmp_path / "run", row)
    np.testing.assert_allclose(stored, values, atol=0.51 / LEVELS)
    limits = [*np.random.default_rng(5).random(300), *values.ravel()[:300]]
    for limit in limits:
        threshold = snapped(float(limit))
        assert ((stored >= threshold.pixel) == (values >= threshold.pixel)).all()
        (found,) = measured(tmp_path / "run", [row], threshold)
        assert found.area_fraction == round(float((values >= threshold.pixel).mean()), 6)


def test_flags_follow_the_score_and_unreadable_photos_stay_so(tmp_path):
    rows = [Row("a", score=0.2, anomalous=True, area_fraction=0.5), Row("b", status=UNREADABLE, error="empty")]
    assert [row.anomalous for row in flagged(rows, fixed(0.2))] == [True, None]
    assert [row.anomalous for row in flagged(rows, fixed(0.21))] == [False, None]
    assert measured(tmp_path, rows[1:], fixed(0.2)) == rows[1:]


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 to 1"):
        snapped(1.5)
    with pytest.raises(InputError, match="png16"):
        stored_map(tmp_path, Row("a.png", output="a"))
