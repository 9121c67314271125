"""Principal components of features against numpy's SVD of the features written out, in float64."""

import numpy as np
import pytest
import torch
from test_query import ATOMS, make_scene, view

from splat.feature_colors import SPREAD, feature_pca, gaussian_colors
from splat.rasterize import rasterize_features
from splat.scene import stack


def written_out(field, level: int, mass: np.ndarray):
    """Mean, standard deviations and directions of the features, weighted by mass."""
    features = field.decode()[:, level].double().numpy()
    mean = mass @ features / mass.sum()
    _, singular, directions = np.linalg.svd(
        np.sqrt(mass / mass.sum())[:, None] * (features - mean), full_matrices=False
    )
    return features, mean, singular[:3], directions[:3]


@pytest.mark.parametrize("level", [0, 2])
def test_colors_are_coordinates_along_the_principal_directions(level):
    _, field = make_scene(200)
    mass = np.random.default_rng(0).uniform(0.1, 3.0, 200)
    pca = feature_pca(field, level, torch.from_numpy(mass))
    features, mean, deviations, directions = written_out(field, level, mass)
    np.testing.assert_allclose(pca.variances, deviations**2, rtol=1e-6)
    expected = (features - mean) @ directions.T / (2 * SPREAD * deviations)
    found = pca.colors(field.indices[:, level], field.weights[:, level]).numpy() - 0.5
    signs = np.sign((expected * found).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-5)


def test_signs_do_not_depend_on_the_order_of_the_gaussians():
    _, field = make_scene(150)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(3))
    one, other = feature_pca(field, 1), feature_pca(field.subset(order), 1)
    torch.testing.assert_close(one.atoms, other.atoms, atol=1e-5, rtol=1e-4)


def test_gaussians_without_a_code_and_repeated_atoms():
    _, field = make_scene(120)
    field.indices[:, 1, 1] = field.indices[:, 1, 0]
    field.weights[:20] = 0.0
    pca = feature_pca(field, 1)
    _, _, deviations, _ = written_out(field.subset(slice(20, None)), 1, np.ones(100))
    np.testing.assert_allclose(pca.variances, deviations**2, rtol=1e-6)


def test_fewer_directions_than_colors_and_none_at_all():
    _, field = make_scene(60)
    field.indices[:, 0] %= 2
    pca = feature_pca(field, 0)
    assert pca.variances[1] > 0
    assert pca.variances[2] == pytest.approx(0.0, abs=1e-12)
    field.weights[:] = 0.0
    colors = feature_pca(field, 0).colors(field.indices[:, 0], field.weights[:, 0])
    assert bool(torch.isfinite(colors).all())


def test_splatted_colors_are_those_of_the_pixels_features():
    gaussians, field = make_scene(120)
    colors = gaussian_colors(gaussians, field, 2)
    camera = view()
    image, alphas = rasterize_features(*gaussians.geometry, colors, *stack([camera]), camera.width, camera.height)
    dense = field.decode()[:, 2]
    features, _ = rasterize_features(*gaussians.geometry, dense, *stack([camera]), camera.width, camera.height)
    area = gaussians.scales.sort(dim=1).values[:, 1:].prod(dim=1)
    mass = (gaussians.opacities * area).double().numpy()
    _, mean, deviations, directions = written_out(field, 2, mass)
    alpha = alphas[0].double().numpy()
    covered = alpha[..., 0] > 0.2
    pixels = features[0].double().numpy() / np.maximum(alpha, 1e-9)
    expected = ((pixels - mean) @ directions.T / (2 * SPREAD * deviations))[covered]
    found = (image[0].double().numpy() / np.maximum(alpha, 1e-9) - 0.5)[covered]
    signs = np.sign((expected * found).sum(0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)
    assert field.atoms.shape[1] == ATOMS
