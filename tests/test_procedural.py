"""Invented inspection classes: the same seed gives the same photo, specimens of a class resemble each other."""

import cv2
import numpy as np
import pytest

from dictas.procedural import FAMILIES, ProceduralClass, draw_class
from dictas.procedural.noise import cells, fractal, grain, ripples, value_noise


def features(image: np.ndarray) -> np.ndarray:
    """Colour histogram and a gradient histogram at three scales, by other means than the generator's own."""
    parts = [np.histogram(image[:, :, channel], 16, (0, 255))[0] for channel in range(3)]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    for _ in range(3):
        dy, dx = np.gradient(grey)
        parts.append(np.histogram(np.hypot(dx, dy), 12, (0, 60))[0])
        parts.append(np.histogram(np.arctan2(dy, dx) % np.pi, 8, (0, np.pi), weights=np.hypot(dx, dy) + 1e-6)[0])
        grey = cv2.pyrDown(grey)
    return np.concatenate([part / part.sum() for part in parts])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_reproducible_photos_with_a_product_on_them(family: str) -> None:
    item = ProceduralClass(family, 5)
    image, product = item.sample(np.random.default_rng(1), (96, 128))
    again, product_again = ProceduralClass(family, 5).sample(np.random.default_rng(1), (96, 128))
    other, _ = item.sample(np.random.default_rng(2), (96, 128))

    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    assert product.shape == (96, 128)
    assert product.dtype == bool
    assert product.mean() > 0.01
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(product, product_again)
    assert (image != other).any()


def test_a_class_looks_the_same_at_another_size() -> None:
    item = ProceduralClass("perforated", 3)
    small, _ = item.sample(np.random.default_rng(0), (128, 128))
    large, _ = item.sample(np.random.default_rng(0), (256, 256))
    halved = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA)

    spectra = [np.abs(np.fft.fft2(image[:, :, 1] - image[:, :, 1].mean())) for image in (small, halved)]
    assert np.corrcoef(spectra[0].ravel(), spectra[1].ravel())[0, 1] > 0.5


@pytest.mark.parametrize("size", [(32, 32), (64, 200), (211, 77)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    for family in FAMILIES:
        image, product = ProceduralClass(family, 11).sample(rng, size)
        assert image.shape == (*size, 3)
        assert product.shape == size


def test_specimens_resemble_their_class_more_than_others() -> None:
    rng = np.random.default_rng(0)
    classes = [draw_class(rng) for _ in range(40)]
    first, second = ([features(item.sample(rng, (128, 128))[0]) for item in classes] for _ in range(2))
    distances = np.abs(np.stack(second)[:, None] - np.stack(first)[None]).sum(-1)
    hits = float((distances.argmin(1) == np.arange(40)).mean())
    assert hits > 0.6  # chance is 0.025


def test_drawn_classes_are_many_and_different() -> None:
    rng = np.random.default_rng(0)
    classes = [draw_class(rng) for _ in range(300)]
    assert len({item.family for item in classes}) > 0.9 * len(FAMILIES)
    assert len({item.seed for item in classes}) == 300
    images = [item.sample(rng, (64, 64))[0] for item in classes[:60]]
    grey = [bool((np.ptp(image.astype(int), axis=2) == 0).all()) for image in images]
    assert 0.1 < np.mean(grey) < 0.8
    brightness = np.asarray([image.mean() for image in images])
    assert brightness.std() > 30


def test_some_classes_vary_much_in_brightness_and_some_hardly() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for seed in range(30):
        item = ProceduralClass("plain", seed)
        means = [item.sample(rng, (32, 32))[0].mean() + 1 for _ in range(6)]
        ratios.append(max(means) / min(means))
    assert min(ratios) < 1.15
    assert max(ratios) > 1.6


@pytest.mark.parametrize("cell", [1.0, 3.5, 20.0, 500.0])
def test_noise_has_unit_variance_over_many_realisations(cell: float) -> None:
    rng = np.random.default_rng(0)
    values = np.stack([value_noise(rng, (16, 24), cell) for _ in range(400)])
    assert abs(values.mean()) < 0.1
    assert abs((values**2).mean() - 1) < 0.12


def test_noise_is_smooth_at_the_scale_of_its_cell() -> None:
    rng = np.random.default_rng(0)
    noise = value_noise(rng, (200, 200), (10.0, 40.0))
    lag = {axis: np.mean(np.diff(noise, axis=axis) ** 2) for axis in (0, 1)}
    assert 8 < lag[0] / lag[1] < 32  # (40 / 10)²


@pytest.mark.parametrize("make", [fractal, grain, ripples])
def test_other_noises_have_unit_variance(make) -> None:  # type: ignore[no-untyped-def]
    noise = make(np.random.default_rng(0), (256, 256), 6.0)
    assert abs(float(noise.std()) - 1) < 0.1


def test_cells_are_where_their_rims_say() -> None:
    numbers, rim = cells(np.random.default_rng(0), (120, 160), 20.0)
    border = numbers[:, 1:] != numbers[:, :-1]
    assert (rim[:, 1:][border] == 0).all()
    assert 20 < len(np.unique(numbers)) < 100
    y, x = np.unravel_index(rim.argmax(), rim.shape)
    reach = int(rim.max()) - 1
    assert len(np.unique(numbers[y, max(x - reach, 0) : x + reach])) == 1
