"""Embedded regions: the merge tree against scikit-learn, and whole objects on a picture with known panels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph

import encoders
from encoders.files import read_image
from encoders.merging import MergeOptions, MergeTree, merge_tree

WARD = MergeOptions(size_power=1, edge_share=0, enclosure=0, void=0)


def blocks(rows: int, columns: int, side: int = 4) -> np.ndarray:
    """Square superpixels numbered row by row."""
    return np.arange(rows * columns).reshape(rows, columns).repeat(side, 0).repeat(side, 1)


def test_with_size_and_features_only_it_is_wards_method_of_scikit_learn():
    superpixels = blocks(6, 7)
    features = np.random.default_rng(0).normal(size=(42, 3))
    tree = merge_tree(superpixels, features, np.zeros(superpixels.shape), WARD)
    model = AgglomerativeClustering(
        n_clusters=None, distance_threshold=0, connectivity=grid_to_graph(6, 7), linkage="ward"
    ).fit(features)
    # scikit-learn's distance is sqrt(2 n m / (n + m)) |difference|, n and m counted in superpixels.
    expected_heights = model.distances_**2 / 2 / 42
    for merge, pair in enumerate(model.children_):  # where only neighbours merge, a later merge may cost less
        below = [expected_heights[child - 42] for child in pair if child >= 42]
        expected_heights[merge] = max([expected_heights[merge], *below])
    np.testing.assert_allclose(tree.heights, expected_heights, rtol=1e-9)
    np.testing.assert_array_equal(np.sort(tree.children, axis=1), np.sort(model.children_, axis=1))


def test_strong_edges_and_holes_decide_between_equal_neighbours():
    superpixels = blocks(1, 3)
    features = np.zeros((3, 1))
    edges = np.zeros(superpixels.shape)
    edges[:, 3:5] = 1.0  # between the first and the second
    tree = merge_tree(superpixels, features, edges, MergeOptions())
    assert set(tree.children[0]) == {1, 2}
    # A block inside another one and a block beside it, both equally unlike it.
    nested = np.zeros((12, 16), dtype=int)
    nested[4:8, 4:8] = 1
    nested[4:8, 12:16] = 2
    tree = merge_tree(nested, np.array([[0.0], [1.0], [1.0]]), np.zeros(nested.shape), MergeOptions(edge_share=0))
    assert set(tree.children[0]) == {0, 1}


def test_cuts_are_nested_and_extremes_are_all_or_nothing():
    superpixels = blocks(5, 5)
    generator = np.random.default_rng(3)
    tree = merge_tree(superpixels, generator.normal(size=(25, 2)), generator.random(superpixels.shape), MergeOptions())
    assert len(np.unique(tree.cut(-1.0))) == 25
    assert set(tree.cut(np.inf)) == {0}
    fine, coarse = tree.cut(float(tree.heights[8])), tree.cut(float(tree.heights[18]))
    assert len(np.unique(fine)) == 25 - 9
    assert len(np.unique(fine * 25 + coarse)) == len(np.unique(fine))
    assert (np.diff(tree.heights) >= -1e-12).sum() > 0
    parents = {int(child): 25 + k for k, pair in enumerate(tree.children) for child in pair}
    for node in range(25, 48):
        assert tree.heights[parents[node] - 25] >= tree.heights[node - 25]


def test_a_single_superpixel_is_a_tree():
    tree = merge_tree(np.zeros((4, 4), dtype=int), np.zeros((1, 2)), np.zeros((4, 4)), MergeOptions())
    assert isinstance(tree, MergeTree)
    np.testing.assert_array_equal(tree.cut(1.0), [0])


def picture_with_panels() -> tuple[np.ndarray, list[np.ndarray]]:
    """Three photos seen from the side before a wall of bricks, and where they are."""
    data = Path(skimage.__file__).parent / "data"
    wall = cv2.resize(read_image(data / "brick.png"), (480, 480))[:360].astype(np.float32)
    image = (wall * 0.4 + np.array([90, 100, 110])).astype(np.uint8)
    places = {
        "coffee.png": [(30, 60), (170, 75), (170, 180), (30, 195)],
        "astronaut.png": [(215, 90), (320, 80), (320, 220), (215, 205)],
        "chelsea.png": [(310, 240), (450, 225), (450, 330), (310, 335)],
    }
    masks = []
    for name, corners in places.items():
        photo = read_image(data / name)
        height, width = photo.shape[:2]
        flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        warp = cv2.getPerspectiveTransform(flat, np.array(corners, np.float32))
        seen = cv2.warpPerspective(photo, warp, (480, 360), flags=cv2.INTER_AREA)
        mask = cv2.warpPerspective(np.full((height, width), 255, np.uint8), warp, (480, 360)) > 127
        image[mask] = seen[mask]
        masks.append(mask)
    return image, masks


@pytest.fixture(scope="module")
def panels():
    image, masks = picture_with_panels()
    return image, masks, encoders.create_regions("embedded").segment(image)


def test_photo_covered_panels_are_found_whole(panels):
    _, masks, ids = panels
    best = []
    for mask in masks:
        candidates = [ids[level] == region for level in range(3) for region in np.unique(ids[level][mask])]
        best.append(max((mask & region).sum() / (mask | region).sum() for region in candidates))
    assert min(best) > 0.7
    assert np.mean(best) > 0.85


def test_levels_are_nested_partitions_with_ids_of_their_own(panels):
    image, _, ids = panels
    assert ids.shape == (3, *image.shape[:2])
    assert ids.dtype == np.int32
    per_level = [np.unique(level) for level in ids]
    np.testing.assert_array_equal(np.concatenate(per_level), np.arange(ids.max() + 1))
    counts = [len(level) for level in per_level]
    assert counts[0] > counts[1] > counts[2] >= 4
    for fine, coarse in ((0, 1), (1, 2)):
        pairs = np.unique(np.stack([ids[fine].ravel(), ids[coarse].ravel()]), axis=1)
        assert pairs.shape[1] == counts[fine]


@pytest.mark.parametrize("shape", [(37, 500), (300, 90), (24, 24)])
def test_any_size_of_picture_is_segmented(shape):
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_NEAREST)
    ids = encoders.create_regions("embedded").segment(image)
    assert ids.shape == (3, *shape)
    np.testing.assert_array_equal(np.unique(ids), np.arange(ids.max() + 1))


def test_a_picture_of_one_colour_is_segmented():
    ids = encoders.create_regions("embedded").segment(np.full((80, 120, 3), 70, np.uint8))
    assert ids.min() == 0


def test_segmentation_is_repeatable(panels):
    image, _, ids = panels
    read_only = image.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(encoders.create_regions("embedded").segment(read_only), ids)
