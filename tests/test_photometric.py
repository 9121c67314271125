"""The native loss against a float64 convolution with autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splat.photometric import photometric_loss


def reference(image: Tensor, truth: Tensor, weight: float) -> Tensor:
    position = torch.arange(11, dtype=torch.float64) - 5
    taps = torch.exp(-(position**2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    channels = image.shape[-1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=5, groups=channels)

    a, b = image.permute(2, 0, 1)[None], truth.permute(2, 0, 1)[None]
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 0.01**2) * (2 * cov + 0.03**2)
    ssim = ssim / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))
    return (1 - weight) * (a - b).abs().mean() + weight * (1 - ssim.mean())


@pytest.mark.parametrize("shape", [(40, 300, 3), (7, 5, 3), (64, 33, 1)])
@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_loss_and_gradient_agree_with_float64(shape: tuple[int, int, int], weight: float) -> None:
    g = torch.Generator().manual_seed(sum(shape))
    truth = torch.rand(shape, generator=g)
    image = (truth + 0.2 * torch.randn(shape, generator=g)).requires_grad_()
    loss = photometric_loss(image, truth, weight)
    (3 * loss).backward()
    leaf = image.detach().double().requires_grad_()
    expected = reference(leaf, truth.double(), weight)
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert image.grad is not None
    assert leaf.grad is not None
    assert float((image.grad - leaf.grad).norm() / leaf.grad.norm()) < 1e-4


def test_equal_images_have_no_loss() -> None:
    image = torch.rand(20, 30, 3)
    assert float(photometric_loss(image, image)) == pytest.approx(0.0, abs=1e-6)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be"):
        photometric_loss(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))
