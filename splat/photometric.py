"""The photometric loss of 3DGS: native code on the CPU, where it runs at every step of a fit, torch's on a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from splat import _native

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Constants of SSIM (Wang et al. 2004) for images in 0..1."""


class _Photometric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, truth: Tensor, ssim_weight: float) -> Tensor:
        height, width, channels = image.shape
        gradient = torch.empty(height, width, channels)
        l1, ssim = _native.photometric(
            image.detach().contiguous(), truth.contiguous(), height, width, channels, ssim_weight, gradient
        )
        ctx.save_for_backward(gradient)
        return torch.tensor((1.0 - ssim_weight) * l1 + ssim_weight * (1.0 - ssim))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_loss: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * v_loss, None, None


def photometric_loss(image: Tensor, truth: Tensor, ssim_weight: float = 0.2) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM) (3DGS, equation 7), differentiable in ``image``.

    SSIM has an 11 x 11 Gaussian window with sigma 1.5, zero padding and data range 1.

    Args:
        image, truth: float32 [H, W, channels] in about 0..1.

    Returns:
        A scalar.
    """
    if image.shape != truth.shape or image.ndim != 3:
        raise ValueError(
            f"the image is {list(image.shape)}, the truth {list(truth.shape)}; both must be [H, W, channels]"
        )
    if image.device.type == "cpu":
        return _Photometric.apply(image, truth, ssim_weight)
    return (1.0 - ssim_weight) * (image - truth).abs().mean() + ssim_weight * (1.0 - _ssim(image, truth))


def _ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Mean SSIM of two images [H, W, channels], in torch's own operators."""
    a, b = image.movedim(2, 0), truth.movedim(2, 0)
    mean_a, mean_b, square_a, square_b, product = _blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    variances = square_a - mean_a.square() + square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    return (likeness / ((mean_a.square() + mean_b.square() + SSIM_C1) * (variances + SSIM_C2))).mean()


def _blur(planes: Tensor) -> Tensor:
    """SSIM's window around each pixel of each plane [P, H, W], zeros outside.

    A group per plane keeps this away from tensor cores, whose 10 bits do not survive the differences above.
    """
    count = len(planes)
    taps = torch.arange(SSIM_WINDOW, device=planes.device) - SSIM_WINDOW // 2
    window = torch.softmax(-taps.square() / (2 * SSIM_SIGMA**2), dim=0)
    for shape in ((1, SSIM_WINDOW), (SSIM_WINDOW, 1)):
        kernel = window.view(1, 1, *shape).expand(count, 1, *shape)
        planes = F.conv2d(planes[None], kernel, padding=(shape[0] // 2, shape[1] // 2), groups=count)[0]
    return planes
