"""The detector that comes with the program, on things that it was not trained on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.held_out_textures import measure
from dictas.checkpoint import load_detector, shipped_detector
from dictas.datasets import read_dataset, read_mask
from dictas.detector import pixel_map
from encoders.files import read_image

CABLE = Path(__file__).parents[2] / "shared" / "data" / "cable"


def test_weights_are_small_enough_to_ship():
    assert 10_000 < shipped_detector().stat().st_size < 25_000_000


@pytest.mark.slow
def test_defects_on_textures_of_another_generator_are_found():
    found = measure(classes=4, shots=2, queries=3)
    assert found["pixel_auroc"] >= 0.95
    assert found["pixel_ap"] >= 0.3


@pytest.mark.skipif(
    not CABLE.is_dir(), reason="needs the cable photos of MVTec AD, which are not part of this repository"
)
def test_the_bent_wire_is_the_brightest_region():
    (cable,) = read_dataset(CABLE)
    (sample,) = cable.test
    image = read_image(sample.path)
    mask = read_mask(sample, image.shape[:2])
    backbone, detector = load_detector()
    detector.remember([backbone.batch([backbone.prepare(read_image(path))]) for path in cable.normal])
    batch = backbone.batch([backbone.prepare(image)])
    found = pixel_map(detector.maps(batch)[0], batch.images.shape[1:3], mask.shape)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert mask[row, column]
    overlaps = []
    for threshold in np.quantile(found, np.linspace(0.5, 0.9999, 400)):
        above = found >= threshold
        overlaps.append((above & mask).sum() / (above | mask).sum())
    assert max(overlaps) >= 0.4
    # Not only somewhere: of all regions above the best threshold the largest lies on the wire.
    above = (found >= np.quantile(found, np.linspace(0.5, 0.9999, 400))[int(np.argmax(overlaps))]).astype(np.uint8)
    _, labels, areas, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    largest = labels == 1 + int(np.argmax(areas[1:, cv2.CC_STAT_AREA]))
    assert (largest & mask).sum() > 0.5 * largest.sum()
