"""The threshold that flags photos, from masks of some of them."""

from dataclasses import replace

import numpy as np
import pytest
from inspection import save, texture
from judging import QUICK, run
from PIL import Image

from dictas.detector import image_score
from encoders.errors import InputError


def test_masks_give_the_threshold(support, tmp_path):
    query, masks = tmp_path / "test", tmp_path / "ground_truth"
    for number in range(8):
        spot = (8 * number % 40, 20)
        save(query / "good" / f"{number}.png", texture(50 + number))
        save(query / "red" / f"{number}.png", texture(60 + number, spot=spot))
        save(query / "unknown" / f"{number}.png", texture(70 + number, spot=spot))
        mask = np.zeros((64, 64), np.uint8)
        mask[spot[0] : spot[0] + 16, 20:36] = 255
        save(masks / "red" / f"{number}_mask.png", mask)
    found = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    threshold = found.results["threshold"]
    assert threshold["method"] == "f1"
    assert len(threshold["samples"]) == 16
    assert threshold["f1"] > 0.7
    assert [row.anomalous for row in found.rows] == [False] * 8 + [True] * 16
    save(masks / "red" / "3_mask.png", np.zeros((30, 30), np.uint8))
    with pytest.raises(InputError, match=r"3_mask\.png has 30x30 pixels"):
        run(support, query, tmp_path / "other", replace(QUICK, masks=masks))
    with pytest.raises(InputError, match="No mask in"):
        run(support, query, tmp_path / "other", replace(QUICK, masks=support))


def test_masks_of_defective_photos_alone_flag_all_of_them(support, tmp_path):
    query, masks = tmp_path / "query", tmp_path / "masks"
    for number in range(5):
        side = 5 if number == 2 else 16  # 0.3 % of the area: less than what the score averages
        image, mask = texture(60 + number, 96, 96), np.zeros((96, 96), np.uint8)
        image[40 : 40 + side, 20 : 20 + side] = (230, 20, 20)
        mask[40 : 40 + side, 20 : 20 + side] = 255
        save(query / f"{number}.png", image)
        save(masks / f"{number}.png", mask)
    save(query / "good.png", texture(99, 96, 96))
    found = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    assert [row.anomalous for row in found.rows] == [True] * 5 + [False]


def test_small_defects_of_tiled_photos_are_flagged(support, tmp_path):
    """0.03 % of the area; the mean of the highest 0.5 % of the whole map hardly knows it."""
    image = texture(5, 400, 520)
    image[300:308, 411:419] = (230, 20, 20)
    for number in range(3):
        save(tmp_path / "large" / f"{number}.png", texture(number, 400, 520))
    save(tmp_path / "query" / "bad.png", image)
    save(tmp_path / "query" / "good.png", texture(6, 400, 520))
    found = run(tmp_path / "large", tmp_path / "query", tmp_path / "out", replace(QUICK, tile=64))
    assert [row.anomalous for row in found.rows] == [True, False]
    score = found.rows[0].score
    assert score > 3 * image_score(np.array(Image.open(tmp_path / "out/maps/bad.png")) / np.float32(65535))


def test_added_photos_are_judged_by_the_threshold_of_masks(support, tmp_path):
    query, masks = tmp_path / "query", tmp_path / "masks"
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 20:36] = 255
    save(query / "good" / "1.png", texture(50))
    save(query / "red" / "2.png", texture(60, spot=(20, 20)))
    save(masks / "red" / "2.png", mask)
    first = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    save(query / "a.png", texture(70, spot=(20, 20)))
    second = run(support, query, tmp_path / "out", replace(QUICK, masks=masks))
    assert second.results["threshold"] == first.results["threshold"]
    assert [row.anomalous for row in second.rows] == [True, False, True]
