"""Recoloured and hidden Gaussians: what is seen of them."""

import numpy as np
import torch
from test_query import blobs

from splat.evaluate import renderer
from splat.recolor import hide, recolor
from splat.scene import Camera

K = np.array([[60.0, 0.0, 60.0], [0.0, 60.0, 30.0], [0.0, 0.0, 1.0]])
FRONT = Camera("front", 120, 60, K, np.eye(4))
LEFT, MIDDLE = (37, 30), (60, 30)
"""Pixels (x, y) where the first and the second ball are."""


def at(picture: np.ndarray, pixel: tuple[int, int]) -> np.ndarray:
    return picture[pixel[1], pixel[0]]


def test_full_strength_is_the_colour_itself_from_every_side():
    gaussians, _, _ = blobs()
    gaussians.sh[:] = torch.randn(gaussians.sh.shape, generator=torch.Generator().manual_seed(0))
    which = torch.zeros(len(gaussians), dtype=torch.bool)
    which[:60] = True
    wanted = torch.tensor([0.9, 0.2, 0.4])
    picture = renderer(recolor(gaussians, wanted, which, strength=1.0))(FRONT)
    before = renderer(gaussians)(FRONT)
    np.testing.assert_allclose(at(picture, LEFT) / at(picture, LEFT).max(), wanted / wanted.max(), atol=1e-3)
    np.testing.assert_allclose(at(picture, MIDDLE), at(before, MIDDLE), atol=1e-6)


def test_half_strength_lies_halfway_and_each_may_have_its_own():
    gaussians, _, _ = blobs()
    colors = torch.rand(len(gaussians), 3, generator=torch.Generator().manual_seed(1))
    half = recolor(gaussians, colors, strength=0.5)
    full, none = recolor(gaussians, colors, strength=1.0), recolor(gaussians, colors, strength=0.0)
    torch.testing.assert_close(half.sh, (full.sh + none.sh) / 2)
    torch.testing.assert_close(none.sh, gaussians.sh)
    assert half.means is gaussians.means


def test_hidden_gaussians_leave_the_picture_as_if_they_were_gone():
    gaussians, _, _ = blobs()
    gaussians.sh[:, 0] = 1.0
    which = torch.zeros(len(gaussians), dtype=torch.bool)
    which[60:120] = True
    hidden = renderer(hide(gaussians, which))(FRONT)
    gone = renderer(gaussians.subset(~which))(FRONT)
    np.testing.assert_allclose(hidden, gone, atol=1e-6)
    assert at(hidden, MIDDLE).max() < 0.05 < at(renderer(gaussians)(FRONT), MIDDLE).max()
