"""Synthetic defects: the mask says what changed, all sizes occur, the same seed gives the same defects."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from dictas.procedural import draw_class
from dictas.synthesis import KINDS, add_anomalies, add_defect, augment_support
from dictas.textures import CACHED, FolderTextures, GivenTextures
from encoders.errors import InputError


def photo(seed: int = 0, size: tuple[int, int] = (160, 200)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return draw_class(rng).sample(rng, size)


def some_textures() -> list[np.ndarray]:
    return [photo(seed, (96, 96))[0] for seed in (91, 92, 93)]


def test_the_mask_marks_what_changed_and_only_that() -> None:
    textures = some_textures()
    for seed in range(40):
        image, product = photo(seed)
        before = image.copy()
        changed, mask = add_anomalies(image, product, np.random.default_rng(seed), textures)

        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        assert mask.dtype == bool
        assert mask.any()
        np.testing.assert_array_equal(image, before)  # the caller's photo is left alone
        far = ndimage.distance_transform_edt(~mask) > 4.5
        np.testing.assert_array_equal(changed[far], image[far])
        difference = np.abs(changed.astype(int) - image).max(axis=2)
        away_from_change = ndimage.distance_transform_edt(difference < 4)
        assert np.mean(away_from_change[mask] <= 2) > 0.9
        regions, count = ndimage.label(ndimage.binary_dilation(mask))
        strongest = ndimage.maximum(difference, regions, range(1, count + 1))
        assert np.mean(np.asarray(strongest) >= 7) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_leaves_a_mark_on_the_product(kind: str) -> None:
    source = GivenTextures(some_textures())
    made = 0
    for seed in range(24):
        image, product = photo(seed)
        work = image.astype(np.float32)
        mask = add_defect(kind, work, product, np.random.default_rng(seed), source)
        made += mask.any()
        if not mask.any():
            np.testing.assert_array_equal(work, image)
        assert (ndimage.binary_dilation(product, iterations=6) | ~mask).all()
    assert made >= 8


def test_a_textureless_photo_and_an_empty_product_get_a_defect_too() -> None:
    for level in (0, 255, 128):
        image = np.full((64, 48, 3), level, np.uint8)
        changed, mask = add_anomalies(image, np.zeros((64, 48), bool), np.random.default_rng(level), [image])
        assert mask.any()
        assert (changed != image).any(axis=2)[mask].mean() > 0.5


def test_the_same_seed_gives_the_same_defects() -> None:
    image, product = photo(3)
    results = [add_anomalies(image, product, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert (results[0][1] != results[2][1]).any()


def test_defects_of_all_sizes_occur_and_small_ones_are_common() -> None:
    image, _ = photo(4, (256, 256))
    textures = some_textures()
    areas = np.asarray(
        [add_anomalies(image, None, np.random.default_rng(seed), textures)[1].sum() for seed in range(300)]
    )
    assert np.mean(areas < 30) > 0.02
    assert np.mean(areas < 0.004 * image.shape[0] ** 2) > 0.3
    assert np.mean(areas > 0.02 * image.shape[0] ** 2) > 0.05
    assert areas.max() < 0.5 * image.shape[0] ** 2


def test_contrasts_range_from_subtle_to_strong() -> None:
    image = np.full((128, 128, 3), 120, np.uint8)
    strongest, textures = [], some_textures()
    for seed in range(120):
        changed, _ = add_anomalies(image, None, np.random.default_rng(seed), textures)
        strongest.append(np.abs(changed.astype(int) - image).max())
    assert np.mean(np.asarray(strongest) < 30) > 0.05
    assert np.mean(np.asarray(strongest) > 80) > 0.1


def test_grey_photos_stay_grey() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(60, 180, (96, 96, 1), dtype=np.uint8), 3, axis=2)
    textures = some_textures()
    for seed in range(20):
        changed, _ = add_anomalies(grey, None, np.random.default_rng(seed), textures)
        assert (np.ptp(changed.astype(int), axis=2) == 0).all()


def test_only_kinds_that_were_asked_for_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = add_defect

    def noted(kind, *arguments):
        drawn.append(kind)
        return real(kind, *arguments)

    monkeypatch.setattr("dictas.synthesis.add_defect", noted)
    photo = np.full((64, 64, 3), 120, np.uint8)
    for seed in range(20):
        add_anomalies(photo, None, np.random.default_rng(seed), [photo + 90], ["perlin"])
    assert set(drawn) == {"perlin"}
    drawn.clear()
    for seed in range(20):
        add_anomalies(photo, None, np.random.default_rng(seed), [photo + 90])
    assert len(set(drawn)) > 5
    assert "perlin" not in drawn


def test_textures_come_from_a_folder_and_unreadable_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = np.full((40, 30, 3), 50 * (number + 1), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image either")
    source = FolderTextures(tmp_path)

    seen = set()
    for _ in range(60):
        texture = source.texture(rng, (70, 55))
        assert texture.shape == (70, 55, 3)
        assert texture.dtype == np.uint8
        seen |= set(np.unique(texture))
    assert seen == {50, 100, 150}
    first, second = (source.texture(np.random.default_rng(4), (20, 20)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_folder_is_read_when_asked_and_the_cache_is_bounded(tmp_path: Path) -> None:
    for number in range(CACHED + 5):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    source = FolderTextures(tmp_path)
    assert len(source._cache) == 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        source.texture(rng, (8, 8))
    assert len(source._cache) == CACHED


def test_a_folder_without_images_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        FolderTextures(tmp_path / "missing")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no readable image"):
        FolderTextures(tmp_path).texture(np.random.default_rng(0), (8, 8))


def test_augmented_supports_are_reproducible_and_leave_torch_alone() -> None:
    image, _ = photo(6, (96, 130))
    state = torch.random.get_rng_state()
    views = [augment_support(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()
    assert views[0].shape == image.shape
    assert views[0].dtype == np.uint8


def test_augmented_supports_move_the_picture_but_keep_its_colours() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 60, 200, cv2.NORM_MINMAX)
    rng = np.random.default_rng(0)
    for _ in range(10):
        view = augment_support(image, rng)
        assert np.abs(view.astype(int) - image).mean() > 8
        assert view.min() > 0 or view.std() > 5  # no black corners, no uniform picture
        assert (view.max(axis=2) < 8).mean() < 0.01
        assert abs(float(view.mean()) - float(image.mean())) < 70
